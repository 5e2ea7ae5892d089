"""Ridge autoregression on the steps and the level (`ridge_ar`): structure beyond the random walk.

Owns fit, iteration and the backtest of one fit, in torch on every device, because arithmetic dominates the time. Rows
of different lengths share a batch: short rows have zero columns and zero weights without effect.
"""

from dataclasses import dataclass

import torch

from models.forecast.arrays import AnyArray, back, tensor
from models.forecast.path import Path
from models.forecast.volatility import LEAST_STEPS, SMALLEST_SIGMA

MOST_LAGS, LEAST_LAGS = 64, 4
CLIP = 5.0
AGEING = 0.995
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
LEAST_FREEDOM = 0.05
# Losses within this share are equal, and the strongest penalty wins: rounding must not choose.
TIE = 1e-9
DECAYS = (0.97, 0.99, 1.0)
LARGEST_RESPONSE = 5.0
# Forecast steps are bounded in units of the series' own: an explosive fit would overflow within a year.
LARGEST_STEP = 1e3
MOST_ORIGINS = 64
# Elements of one design tensor; a fit of more rows is split to bound the memory.
DESIGN = 1 << 22


@dataclass(frozen=True, slots=True)
class Fit:
    """Autoregressions of b paths: y = drift + lags . (recent y - drift) + pull * (level - centre), y = step / scale.

    lags: [b, p], oldest lag first. pull, drift, centre, scale: [b]. error: [b, W], leave-one-out residuals of
    y, zero where ``known`` [b, W] is false.
    """

    lags: torch.Tensor
    pull: torch.Tensor
    drift: torch.Tensor
    centre: torch.Tensor
    scale: torch.Tensor
    error: torch.Tensor
    known: torch.Tensor


def _divide(top: torch.Tensor, bottom: torch.Tensor) -> torch.Tensor:
    return top / torch.where(bottom > 0, bottom, 1.0)


def scaled(path: Path, scale: torch.Tensor) -> torch.Tensor:
    """[b, W]: steps in units of ``scale`` [b], outliers clipped."""
    return _divide(path.step, scale[:, None]).clamp(-CLIP, CLIP)


def fit(path: Path) -> Fit:
    """Fit every path, with its own penalty by closed-form leave-one-out."""
    device, width = path.step.device, path.step.shape[1]
    count = path.count
    lag_count = (count / 4).floor().clamp(LEAST_LAGS, MOST_LAGS)
    most = min(MOST_LAGS, max(width // 4, LEAST_LAGS))
    scale = (path.step.square().sum(1) / count).sqrt()
    y = scaled(path, scale)

    oldest = path.level[:, 0]
    before = path.level[:, :-1] - oldest[:, None]
    mean_rise = before.sum(1) / count
    level_mean = oldest + mean_rise
    gap = path.masked(before - mean_rise[:, None])
    level_deviation = (gap.square().sum(1) / count).sqrt()
    standing = _divide(gap, level_deviation[:, None])

    used = torch.arange(most, 0, -1, device=device) <= lag_count[:, None]
    design = torch.cat([y.unfold(1, most, 1)[:, :-1] * used[:, None, :], standing[:, most:, None]], dim=2)
    target = y[:, most:]
    age = torch.arange(width - most - 1, -1, -1, dtype=torch.float64, device=device)
    weight = torch.where(age < (count - lag_count)[:, None], AGEING**age, 0.0)
    share = weight / weight.sum(1, keepdim=True)
    design_mean = torch.einsum("bm,bmp->bp", share, design)
    target_mean = (share * target).sum(1)
    root = weight.sqrt()
    x = (design - design_mean[:, None, :]) * root[:, :, None]
    r = (target - target_mean[:, None]) * root

    values, vectors = torch.linalg.eigh(x.mT @ x)
    projected = torch.einsum("bpk,bp->bk", vectors, torch.einsum("bmp,bm->bp", x, r))
    penalty = torch.tensor(PENALTIES, dtype=torch.float64, device=device) * lag_count[:, None] / 4
    shrink = 1 / (values.clamp(min=0)[:, None, :] + penalty[:, :, None])
    rotated = x @ vectors
    fitted = torch.einsum("bmk,bjk->bjm", rotated, shrink * projected[:, None, :])
    hat = torch.einsum("bmk,bjk->bjm", rotated.square(), shrink) + share[:, None, :]
    missed = (r[:, None, :] - fitted) / (1 - hat).clamp(min=LEAST_FREEDOM)
    best = _last_smallest(missed.square().sum(2))
    row = torch.arange(len(best), device=device)
    slope = torch.einsum("bpk,bk->bp", vectors, shrink[row, best] * projected)

    pull = _divide(slope[:, -1], level_deviation)
    centre = level_mean + design_mean[:, -1] * level_deviation
    error = torch.nn.functional.pad(_divide(missed[row, best], root), (most, 0))
    known = torch.nn.functional.pad(weight > 0, (most, 0))
    return Fit(slope[:, :-1], pull, _drift(y, path), centre, scale, error, known)


def _last_smallest(losses: torch.Tensor) -> torch.Tensor:
    """[b]: the last column of ``losses`` [b, K] with the smallest loss up to TIE."""
    near = losses <= (1 + TIE) * losses.amin(1, keepdim=True)
    order = torch.arange(losses.shape[1], device=losses.device)
    return torch.where(near, order, -1).amax(1)


def _drift(y: torch.Tensor, path: Path) -> torch.Tensor:
    """[b]: the mean of y, shrunk by the t-statistic of the mean; zero below t = 2."""
    mean = y.sum(1) / path.count
    variance = path.masked(y - mean[:, None]).square().sum(1) / path.count
    found: torch.Tensor = mean * (1 - 4 * variance / (path.count * mean.square()).clamp(min=1e-300)).clamp(min=0)
    return found


def sigma(error: torch.Tensor, known: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """[b, O]: the mean over DECAYS of the discounted root mean square of ``error`` [b, W] before columns ``ends``."""
    age = ends[:, :, None] - 1 - torch.arange(error.shape[1], device=error.device)
    known = known[:, None, :] & (age >= 0)
    age = age.clamp(min=0).double()
    total = error.new_zeros(ends.shape)
    for decay in DECAYS:
        weight = torch.where(known, decay**age, 0.0)
        total = total + (torch.einsum("bow,bw->bo", weight, error.square()) / weight.sum(2)).sqrt()
    return total / len(DECAYS)


def iterate(
    fitted: Fit, path: Path, ends: torch.Tensor, error_sigma: torch.Tensor, steps: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Forecasts from columns ``ends`` (int64 [b, O]) of path.level: median and deviation [b, O, steps] in path units.

    One recursion carries the forecasts and, in the last lane, the response of the level to a unit shock.
    """
    rows, lags = fitted.lags.shape
    lanes = ends.shape[1] + 1
    scale = fitted.scale[:, None]
    memory = path.step.new_zeros(rows, lanes, lags + steps)
    window = (ends[:, :, None] - torch.arange(lags, 0, -1, device=ends.device)).clamp(min=0)
    recent = scaled(path, fitted.scale).gather(1, window.flatten(1)).view(window.shape)
    memory[:, :-1, :lags] = recent - fitted.drift[:, None, None]
    memory[:, -1, lags - 1] = 1.0
    shock = torch.arange(lanes, device=ends.device) == lanes - 1
    drift = torch.where(shock, 0.0, fitted.drift[:, None])
    centre = torch.where(shock, 0.0, fitted.centre[:, None])
    start = path.level.gather(1, ends)
    level = torch.cat([start, scale], dim=1)
    levels = path.step.new_empty(rows, lanes, steps + 1)
    levels[:, :, 0] = level
    for step in range(steps):
        pulled = fitted.pull[:, None] * (level - centre)
        value = torch.einsum("bop,bp->bo", memory[:, :, step : step + lags], fitted.lags) + pulled
        value = value.clamp(-LARGEST_STEP, LARGEST_STEP)
        memory[:, :, lags + step] = value
        level = level + scale * (value + drift)
        levels[:, :, step + 1] = level
    median = _within_reach(levels[:, :-1, 1:], path, ends)
    bound = LARGEST_RESPONSE * scale
    response = levels[:, -1, :-1].clamp(-bound, bound)
    deviation = error_sigma[:, :, None] * response.square().cumsum(1).sqrt()[:, None, :]
    return median, deviation.clamp(min=SMALLEST_SIGMA)


def _within_reach(median: torch.Tensor, path: Path, ends: torch.Tensor) -> torch.Tensor:
    """``median`` [b, O, H] clamped to the range until ``ends``, extended by half of the range on both sides."""
    low: torch.Tensor = path.level.cummin(1).values.gather(1, ends)[:, :, None]
    high: torch.Tensor = path.level.cummax(1).values.gather(1, ends)[:, :, None]
    slack = (high - low) / 2
    return median.clamp(low - slack, high + slack)


@torch.inference_mode()
def predict(path: Path, steps: int) -> tuple[AnyArray, AnyArray]:
    """The median path and its standard deviation, both [b, steps] in path units."""
    device, path = path.step.device, path.tensors()
    fitted = fit(path)
    end = torch.full_like(path.count, path.step.shape[1], dtype=torch.long)[:, None]
    median, deviation = iterate(fitted, path, end, sigma(fitted.error, fitted.known, end), steps)
    return back(median[:, 0], device), back(deviation[:, 0], device)


def rows_at_once(width: int) -> int:
    """How many paths of ``width`` steps may be fitted together."""
    return max(1, DESIGN // (width * (MOST_LAGS + 1)))


def room(points: int, horizon: int) -> int:
    """The number of past origins, one horizon apart, after the part of a series fitted by backtest()."""
    steps = points - 1
    return min(max(steps - max(-(-steps // 2), LEAST_STEPS), 0) // horizon, MOST_ORIGINS)


@torch.inference_mode()
def backtest(path: Path, ends: AnyArray, horizon: AnyArray, steps: int) -> tuple[AnyArray, AnyArray]:
    """Median and deviation, [b, O], one ``horizon`` (int64 [b], at most ``steps``) after past ``ends``.

    ``ends`` (int64 [1 or b, O]) are columns in the latest half of path.level. The coefficients are from the older half
    alone: one fit serves all origins. Sigma follows the errors up to the origin, as in predict().
    """
    device, path = path.step.device, path.tensors()
    origins = tensor(ends).expand(len(path.step), -1)
    early, error, known = _early(path)
    median, deviation = iterate(early, path, origins, sigma(error, known, origins), steps)
    last = (tensor(horizon) - 1)[:, None, None].expand(*origins.shape, 1)
    return back(median.gather(2, last)[..., 0], device), back(deviation.gather(2, last)[..., 0], device)


def _early(path: Path) -> tuple[Fit, torch.Tensor, torch.Tensor]:
    """The fit on the older half, and its residuals of all steps, as error and known of Fit."""
    fitted_on = torch.maximum((path.count / 2).ceil(), torch.full_like(path.count, LEAST_STEPS))
    left_out = (path.count - fitted_on).clamp(min=0).long()
    early = fit(path.without(left_out))
    width = path.step.shape[1]
    y = scaled(path, early.scale)
    lags = early.lags.shape[1]
    windows = torch.nn.functional.pad(y, (lags, 0)).unfold(1, lags, 1)[:, :-1]
    reverting = torch.einsum("bwp,bp->bw", windows - early.drift[:, None, None], early.lags)
    expected = early.drift[:, None] + reverting + early.pull[:, None] * (path.level[:, :-1] - early.centre[:, None])
    place = torch.arange(width, device=y.device)
    late = place >= width - left_out[:, None]
    shift = (place + left_out[:, None]).clamp(max=width - 1)
    error = torch.where(late, y - expected, early.error.gather(1, shift))
    known = torch.where(late, place >= width - path.count[:, None], early.known.gather(1, shift))
    return early, error, known
