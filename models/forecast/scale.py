"""The scale of the structured models: plain values where logarithms would bend a straight line.

Owns the choice for paths of logarithms. The walk keeps the logarithms of path.py. A line in plain values has steps that
shrink in logarithms; a regression on such steps continues the line as an exponential.
"""

from dataclasses import replace

from models.forecast.arrays import AnyArray, holds, largest, namespace
from models.forecast.path import Path

# Plain values are chosen where the density of the steps (normal, independent) is higher by MARGIN per step, in
# logarithms: about as high on both scales for series that hardly change in size, which keep their logarithms.
MARGIN = 0.02
# As in gate.py: the spread of rounding noise counts as none.
SMALLEST_SPREAD = 1e-8


def natural(path: Path) -> Path:
    """The paths with plain values instead of logarithms, where plain values are natural."""
    xp, count = namespace(path.level), path.count
    top = largest(path.level)[:, None]
    relative = path.level - top
    level = xp.exp(relative) - xp.exp(-top)
    step = level[:, 1:] - level[:, :-1]
    gain = xp.log(_spread(path, path.step) / _spread(path, step)) / 2 + path.masked(relative[:, 1:]).sum(1) / count
    plain = path.logs & (gain > MARGIN)
    if holds(~plain):
        return path
    chosen = plain[:, None]
    level, step = xp.where(chosen, level, path.level), xp.where(chosen, step, path.step)
    unit = xp.where(plain, path.last * xp.exp(top[:, 0]), 1.0 if path.unit is None else path.unit)
    size = abs(step)
    return replace(
        path, level=level, step=step, logs=path.logs & ~plain, unit=unit, peak=largest(size), distance=size.sum(1)
    )


def _spread(path: Path, step: AnyArray) -> AnyArray:
    """[B]: the variance of ``step`` [B, W], with a floor."""
    gap = path.masked(step - (step.sum(1) / path.count)[:, None])
    return namespace(step).linalg.vecdot(gap, gap) / path.count + SMALLEST_SPREAD**2
