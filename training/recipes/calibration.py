"""`kind: calibration`: per symbol, how much wider or narrower the intervals of `auto` should be.

Owns the fit of one scale for each symbol by walk-forward quantile loss: the older origins choose the scale, the newest
origins judge it. A scale multiplies the distance of a quantile from the median. Symbols with few bars share a scale.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models import forecast
from models.forecast import Series
from models.manifest import Manifest, digest
from training.recipes import evaluation
from training.recipes.bars import read
from training.recipes.origins import lattice, newest
from training.recipes.recipe import Calibration
from training.recipes.run import DataRefusedError, Outcome, StoppedError, Surroundings

TABLE = "calibration.json"
ARCHITECTURE = "auto_calibrated"
SCALES = np.round(np.geomspace(0.5, 2.0, 41), 4)
_CONTEXT = 512
_SHARED = "*"
_SHARED_ORIGINS = 20
_SMALLEST = 1e-300
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Origins:
    """Forecasts of n origins of one symbol, oldest first: quantiles [n, levels], medians [n], outcomes [n].

    All three are log ratios to the origin's last value, so that symbols of different prices weigh the same. `ends` [n]
    counts the bars before each origin, `bases` [n] are the last values.
    """

    quantiles: Floats
    medians: Floats
    came: Floats
    ends: npt.NDArray[np.int64]
    bases: Floats

    def scaled(self, scale: float) -> Floats:
        """Quantiles with their distance from the median multiplied."""
        return self.medians[:, None] + scale * (self.quantiles - self.medians[:, None])

    def part(self, start: int, end: int) -> "Origins":
        kept = slice(start, end)
        return Origins(self.quantiles[kept], self.medians[kept], self.came[kept], self.ends[kept], self.bases[kept])


def train(recipe: Calibration, around: Surroundings) -> Outcome:
    """Fit, judge and write the table. Raises DataRefusedError, StoppedError."""
    closes = read(around.data)
    long = {symbol: values for symbol, values in closes.items() if len(values) >= recipe.fewest + recipe.horizon}
    if not long:
        raise DataRefusedError(f"no symbol has {recipe.fewest + recipe.horizon} bars")
    origins: dict[str, Origins] = {}
    for step, (symbol, values) in enumerate(sorted(long.items()), start=1):
        if around.stopping():
            raise StoppedError
        origins[symbol] = walk_forward(values, recipe)
        around.measure(step, len(long), {"symbols": float(step)})
    scales = fitted(origins, recipe.levels, recipe.folds)
    measures = judged(origins, scales, recipe.levels, recipe.folds)
    _write(recipe, scales, origins, around.out)
    print(
        f"{len(scales)} scales: quantile loss {measures['loss']:.6f}, unscaled {measures['loss_before']:.6f}",
        flush=True,
    )
    return Outcome(measures)


def walk_forward(closes: Floats, recipe: Calibration) -> Origins:
    """Forecasts of `auto` at origins a horizon apart, each from the bars before it alone."""
    levels = tuple(sorted({*recipe.levels, 0.5}))
    ends = lattice(len(closes), recipe.horizon, recipe.fewest)
    items = [Series(np.ascontiguousarray(closes[max(0, end - _CONTEXT) : end]), recipe.horizon, levels) for end in ends]
    answers = forecast.load("auto").run(items)
    base = closes[ends - 1]
    bands = np.log(np.stack([answer.quantiles[-1] for answer in answers]) / base[:, None])
    columns = [levels.index(level) for level in sorted(recipe.levels)]
    came = np.log(closes[ends - 1 + recipe.horizon] / base)
    return Origins(bands[:, columns], bands[:, levels.index(0.5)], came, ends, base)


def pinball(quantiles: Floats, came: Floats, levels: Sequence[float]) -> Floats:
    """Quantile loss of each origin, averaged over the levels (Koenker and Bassett, 1978)."""
    over = came[:, None] - quantiles
    share = np.array(sorted(levels))
    return np.asarray(np.maximum(share * over, (share - 1) * over).mean(1))


def fitted(origins: dict[str, Origins], levels: Sequence[float], folds: int) -> dict[str, float]:
    """The scale with the lowest loss over the older origins, for each symbol and for all together (`*`).

    A symbol's own loss is mixed with the loss of all symbols as if 20 more origins had been seen, so that few origins
    move the scale little. Each symbol's losses are divided by their mean: a restless symbol does not outweigh the rest.
    """
    own = {symbol: _losses(found.part(0, _cut(found, folds)), levels) for symbol, found in origins.items()}
    own = {symbol: losses / max(float(losses.mean()), _SMALLEST) for symbol, losses in own.items()}
    shared = np.concatenate(list(own.values())).mean(0)
    scales = {_SHARED: float(SCALES[int(shared.argmin())])}
    for symbol, losses in own.items():
        scales[symbol] = float(SCALES[int((losses.sum(0) + _SHARED_ORIGINS * shared).argmin())])
    return scales


def judged(
    origins: dict[str, Origins], scales: dict[str, float], levels: Sequence[float], folds: int
) -> dict[str, float]:
    """Losses and coverage on the newest origins. Those origins have chosen no scale."""
    judging = {symbol: found.part(_cut(found, folds), len(found.came)) for symbol, found in origins.items()}
    before = np.concatenate([pinball(found.quantiles, found.came, levels) for found in judging.values()])
    after = np.concatenate([pinball(found.scaled(scales[s]), found.came, levels) for s, found in judging.items()])
    inside = np.concatenate([_inside(found.scaled(scales[symbol]), found.came) for symbol, found in judging.items()])
    low, high = min(levels), max(levels)
    return {
        "loss": float(after.mean()),
        "loss_before": float(before.mean()),
        "gain": float(1 - after.mean() / before.mean()),
        "coverage": float(inside.mean()),
        "coverage_wanted": float(high - low),
        "origins": float(len(after)),
        "symbols": float(len(origins)),
    }


def _losses(found: Origins, levels: Sequence[float]) -> Floats:
    """[origins, scales]"""
    return np.stack([pinball(found.scaled(scale), found.came, levels) for scale in SCALES], axis=1)


def _inside(quantiles: Floats, came: Floats) -> Floats:
    return ((came >= quantiles[:, 0]) & (came <= quantiles[:, -1])).astype(np.float64)


def _cut(found: Origins, folds: int) -> int:
    """The first of the newest origins: one fold of all."""
    return len(found.ends) - len(newest(found.ends, 1 / folds))


def _write(recipe: Calibration, scales: dict[str, float], origins: dict[str, Origins], out: Path) -> None:
    table = {"horizon": recipe.horizon, "levels": sorted(recipe.levels), "scales": scales}
    content = (json.dumps(table, indent=2, sort_keys=True) + "\n").encode()
    (out / TABLE).write_bytes(content)
    Manifest(
        kind="forecast",
        architecture=ARCHITECTURE,
        name="auto_calibrated",
        version=recipe.version,
        licence="Apache-2.0",
        dtype="float64",
        files={TABLE: digest(content)},
        quantile_levels=tuple(sorted(recipe.levels)),
        settings={"horizon": recipe.horizon},
    ).write(out)
    answered: list[tuple[str, int]] = []
    bands: list[Floats] = []
    for symbol, found in sorted(origins.items()):
        held = found.part(_cut(found, recipe.folds), len(found.came))
        answered += [(symbol, int(end)) for end in held.ends]
        bands += list(held.bases[:, None] * np.exp(held.scaled(scales[symbol])))
    evaluation.write_bands(out, answered, sorted(recipe.levels), [band.tolist() for band in bands])
