"""The gate: how much structure a series shows beyond a random walk, in [0, 1].

Owns that test alone. It is built to stay shut on prices, so that they never pay for the autoregression.
"""

import torch

from models.forecast.path import Path

MOST_LAGS = 100
CLIP = 4.0
UNIT_ROOT_LEVEL = 12.0
OPENS_AT = 0.02
OPENS_OVER = 0.04


def weight(path: Path) -> torch.Tensor:
    """[B]: w = clip((S - .02 - 2/T) / .04, 0, 1) with S the evidence of autocorrelation, drift and mean reversion."""
    count = path.count
    lags = torch.clamp((count / 3).floor(), max=MOST_LAGS)
    theta = 2 * lags.log() / count
    mean = path.step.sum(1) / count
    deviation = _masked(path.step - mean[:, None], path)
    variance = deviation.square().sum(1) / count
    score = _autocorrelation(path, variance, lags, theta)
    score = score + (_ratio(mean.square(), variance) - theta).clamp(min=0)
    score = score + (_dickey_fuller(path, deviation) - UNIT_ROOT_LEVEL).clamp(min=0) / count
    return ((score - OPENS_AT - 2 / count) / OPENS_OVER).clamp(0, 1)


def _masked(values: torch.Tensor, path: Path) -> torch.Tensor:
    return torch.where(path.valid, values, 0.0)


def _ratio(top: torch.Tensor, bottom: torch.Tensor) -> torch.Tensor:
    """top / bottom, and zero where the bottom is: a constant shows no structure."""
    return torch.where(bottom > 0, top / torch.where(bottom > 0, bottom, 1.0), 0.0)


def _autocorrelation(path: Path, variance: torch.Tensor, lags: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """The sum over lags of squared autocorrelation beyond chance, on robustly scaled steps (lower medians)."""
    known = torch.where(path.valid, path.step, torch.nan)
    centred = known - known.nanmedian(dim=1, keepdim=True).values
    spread = torch.maximum(1.4826 * centred.abs().nanmedian(dim=1).values, 0.1 * variance.sqrt())
    clipped = _masked(_ratio(centred, spread[:, None]).clamp(-CLIP, CLIP), path)
    clipped = _masked(clipped - (clipped.sum(1) / path.count)[:, None], path)
    width = clipped.shape[1]
    longest = min(width // 3, MOST_LAGS)
    size = -(-(width + longest) // 64) * 64
    spectrum = torch.fft.rfft(clipped, n=size)
    products = torch.fft.irfft(spectrum * spectrum.conj(), n=size)[:, : longest + 1]
    excess = (_ratio(products[:, 1:], products[:, :1]).square() - theta[:, None]).clamp(min=0)
    within = torch.arange(1, longest + 1, device=excess.device) <= lags[:, None]
    return torch.where(within, excess, 0.0).sum(1)


def _dickey_fuller(path: Path, deviation: torch.Tensor) -> torch.Tensor:
    """The squared t-statistic of the steps on the demeaned level before them where negative, else zero."""
    before = path.level[:, :-1]
    before = _masked(before - (_masked(before, path).sum(1) / path.count)[:, None], path)
    product = (deviation * before).sum(1)
    power = before.square().sum(1)
    slope = _ratio(product, power)
    residual = (deviation.square().sum(1) - slope * product).clamp(min=0) / (path.count - 2)
    squared = _ratio(slope.square() * power, residual)
    return torch.where(product < 0, squared, 0.0)
