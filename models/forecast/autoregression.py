"""Ridge autoregression on the steps and the level (`ridge_ar`): structure beyond the random walk.

Owns fit and iteration. Rows of different lengths share a batch: short ones have zero columns and zero weights, which
change nothing.
"""

from dataclasses import dataclass

import torch

from models.forecast.path import Path
from models.forecast.volatility import SMALLEST_SIGMA

MOST_LAGS, LEAST_LAGS = 64, 4
CLIP = 5.0
AGEING = 0.995
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
LEAST_FREEDOM = 0.05
DECAYS = (0.97, 0.99)
LARGEST_RESPONSE = 5.0
# Elements of one design tensor; a fit of more rows is split, so that memory stays bounded whatever the batch.
DESIGN = 1 << 22


@dataclass(frozen=True, slots=True)
class Fit:
    """Autoregressions of b paths on p lags: step_t / scale = drift + lags . (recent - drift) + pull * (level - centre).

    lags: [b, p], oldest lag first. pull, drift, centre, scale, sigma: [b]. recent: [b, p], the last scaled steps.
    """

    lags: torch.Tensor
    pull: torch.Tensor
    drift: torch.Tensor
    centre: torch.Tensor
    scale: torch.Tensor
    sigma: torch.Tensor
    recent: torch.Tensor


def _divide(top: torch.Tensor, bottom: torch.Tensor) -> torch.Tensor:
    return top / torch.where(bottom > 0, bottom, 1.0)


def chunks(rows: int, width: int) -> list[slice]:
    """Slices of ``rows`` whose design tensor stays within DESIGN elements."""
    size = max(1, DESIGN // (width * (MOST_LAGS + 1)))
    return [slice(start, start + size) for start in range(0, rows, size)]


def fit(path: Path) -> Fit:
    """Fit each path; the penalty of each is chosen by closed-form leave-one-out."""
    device, width = path.step.device, path.step.shape[1]
    valid = path.valid.to(torch.float64)
    lag_count = (path.count / 4).floor().clamp(LEAST_LAGS, MOST_LAGS)
    most = min(MOST_LAGS, max(width // 4, LEAST_LAGS))
    scale = (path.step.square().sum(1) / path.count).sqrt()
    y = _divide(path.step, scale[:, None]).clamp(-CLIP, CLIP) * valid

    before = path.level[:, :-1]
    level_mean = (before * valid).sum(1) / path.count
    level_deviation = (((before - level_mean[:, None]) * valid).square().sum(1) / path.count).sqrt()
    standing = _divide(before - level_mean[:, None], level_deviation[:, None])

    used = torch.arange(most, 0, -1, device=device) <= lag_count[:, None]
    design = torch.cat([y.unfold(1, most, 1)[:, :-1] * used[:, None, :], standing[:, most:, None]], dim=2)
    target = y[:, most:]
    age = torch.arange(width - most - 1, -1, -1, dtype=torch.float64, device=device)
    weight = torch.where(age < (path.count - lag_count)[:, None], AGEING**age, 0.0)
    share = weight / weight.sum(1, keepdim=True)
    design_mean = torch.einsum("bm,bmp->bp", share, design)
    target_mean = (share * target).sum(1)
    root = weight.sqrt()
    x = (design - design_mean[:, None, :]) * root[:, :, None]
    r = (target - target_mean[:, None]) * root

    values, vectors = torch.linalg.eigh(x.mT @ x)
    values = values.clamp(min=0)
    projected = torch.einsum("bpk,bp->bk", vectors, torch.einsum("bmp,bm->bp", x, r))
    penalty = torch.tensor(PENALTIES, dtype=torch.float64, device=device) * lag_count[:, None] / 4
    shrink = 1 / (values[:, None, :] + penalty[:, :, None])
    rotated = x @ vectors
    fitted = torch.einsum("bmk,bjk->bjm", rotated, shrink * projected[:, None, :])
    hat = torch.einsum("bmk,bjk->bjm", rotated.square(), shrink) + share[:, None, :]
    residual = (r[:, None, :] - fitted) / (1 - hat).clamp(min=LEAST_FREEDOM)
    best = residual.square().sum(2).argmin(1)
    row = torch.arange(len(best), device=device)
    slope = torch.einsum("bpk,bk->bp", vectors, shrink[row, best] * projected)

    mean = y.sum(1) / path.count
    variance = ((y - mean[:, None]) * valid).square().sum(1) / path.count
    inverse_t2 = _divide(variance, path.count * mean.square())
    drift = torch.where(mean == 0, 0.0, mean * (1 - 4 * inverse_t2).clamp(min=0))
    pull = _divide(slope[:, -1], level_deviation)
    centre = level_mean + design_mean[:, -1] * level_deviation
    loose = _divide(residual[row, best], root)
    return Fit(slope[:, :-1], pull, drift, centre, scale, _sigma(loose, weight > 0), y[:, -most:])


def _sigma(residual: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """[b]: the mean of two discounted and one plain root mean square of the leave-one-out residuals [b, M]."""
    power = torch.where(real, residual, 0.0).square()
    age = torch.arange(power.shape[1] - 1, -1, -1, dtype=torch.float64, device=power.device)
    total = torch.zeros_like(power[:, 0])
    for decay in (*DECAYS, 1.0):
        weight = torch.where(real, decay**age, 0.0)
        total = total + ((power * weight).sum(1) / weight.sum(1)).sqrt()
    return total / (len(DECAYS) + 1)


def iterate(fitted: Fit, path: Path, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The median path and its standard deviation, both [b, steps] in path units.

    One recursion carries the forecast and, beside it, the level's response to a unit shock.
    """
    rows, lags = fitted.lags.shape
    memory = path.step.new_zeros(rows, 2, lags + steps)
    memory[:, 0, :lags] = fitted.recent - fitted.drift[:, None]
    memory[:, 1, lags - 1] = 1.0
    nothing = torch.zeros_like(fitted.drift)
    drift = torch.stack([fitted.drift, nothing], dim=1)
    centre = torch.stack([fitted.centre, nothing], dim=1)
    level = torch.stack([path.level[:, -1], fitted.scale], dim=1)
    levels = path.step.new_empty(rows, 2, steps + 1)
    levels[:, :, 0] = level
    for step in range(steps):
        recent = memory[:, :, step : step + lags]
        value = (recent * fitted.lags[:, None, :]).sum(2) + fitted.pull[:, None] * (level - centre)
        memory[:, :, lags + step] = value
        level = level + fitted.scale[:, None] * (value + drift)
        levels[:, :, step + 1] = level
    low, high = path.level.amin(1, keepdim=True), path.level.amax(1, keepdim=True)
    slack = (high - low) / 2
    median = levels[:, 0, 1:].clamp(low - slack, high + slack)
    bound = LARGEST_RESPONSE * fitted.scale[:, None]
    response = levels[:, 1, :-1].clamp(-bound, bound)
    deviation = fitted.sigma[:, None] * response.square().cumsum(1).sqrt()
    return median, deviation.clamp(min=SMALLEST_SIGMA)


def predict(path: Path, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit and iterate: the median path and its standard deviation, both [b, steps] in path units."""
    parts = [path.select(part) for part in chunks(*path.step.shape)]
    answers = [iterate(fit(part), part, steps) for part in parts]
    return torch.cat([median for median, _ in answers]), torch.cat([deviation for _, deviation in answers])
