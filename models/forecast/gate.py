"""The gate: how much structure a series shows beyond a random walk, in [0, 1].

Owns that test alone. It is built to stay shut on prices, so that they never pay for the autoregression.
"""

import torch

from models.forecast.path import BLOCK, Path

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
    deviation = (path.step - mean[:, None]) * path.mask
    variance = deviation.square().sum(1) / count
    score = _autocorrelation(path, variance, lags, theta)
    score = score + (mean.square() * _inverse(variance) - theta).clamp(min=0)
    score = score + (_dickey_fuller(path, deviation) - UNIT_ROOT_LEVEL).clamp(min=0) / count
    return ((score - OPENS_AT - 2 / count) / OPENS_OVER).clamp(0, 1)


def _inverse(size: torch.Tensor) -> torch.Tensor:
    """1 / size, and zero where ``size`` is: a constant shows no structure."""
    return torch.where(size > 0, 1 / size, 0.0)


def _autocorrelation(path: Path, variance: torch.Tensor, lags: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """The sum over lags of squared autocorrelation beyond chance, on robustly scaled steps (lower medians)."""
    known = torch.where(path.mask > 0, path.step, torch.nan)
    centre = known.nanmedian(dim=1, keepdim=True).values
    spread = torch.maximum(1.4826 * (known - centre).abs().nanmedian(dim=1).values, 0.1 * variance.sqrt())
    clipped = ((path.step - centre) * _inverse(spread)[:, None]).clamp(-CLIP, CLIP) * path.mask
    clipped = (clipped - (clipped.sum(1) / path.count)[:, None]) * path.mask
    width = clipped.shape[1]
    longest = min(width // 3, MOST_LAGS)
    size = -(-(width + longest) // BLOCK) * BLOCK
    spectrum = torch.fft.rfft(clipped, n=size)
    products: torch.Tensor = torch.fft.irfft(spectrum * spectrum.conj(), n=size)
    correlation = products[:, 1 : longest + 1] * _inverse(products[:, :1])
    within = torch.arange(1, longest + 1, device=lags.device) <= lags[:, None]
    excess = (correlation.square() - theta[:, None]).clamp(min=0)
    return (excess * within).sum(1)


def _dickey_fuller(path: Path, deviation: torch.Tensor) -> torch.Tensor:
    """The squared t-statistic of the steps on the demeaned level before them where negative, else zero."""
    before = path.level[:, :-1] * path.mask
    before = before - (before.sum(1) / path.count)[:, None] * path.mask
    product = (deviation * before).sum(1)
    power = before.square().sum(1)
    explained = product.square() * _inverse(power)
    residual = (deviation.square().sum(1) - explained).clamp(min=0)
    return torch.where(product < 0, explained * _inverse(residual) * (path.count - 2), 0.0)
