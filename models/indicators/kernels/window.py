"""Sliding windows along the last axis: sum, weighted sum, variance, extremes.

Windows of `period` bars over x [..., bars] give results [..., bars - period + 1]; the first window starts at the first
bar. Results are combined from windows of 1, 2, 4, ... bars, each the combination of two windows of half the width. A
result takes about log2(period) passes, and the rounding errors come only from bars inside the window, unlike those of
running sums.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def total(x: Tensor, period: int) -> Tensor:
    """The sum of each window."""
    wide, result, covered = x, None, 0
    for width in _doublings(period):
        if width > 1:
            wide = wide[..., : -(width // 2)] + wide[..., width // 2 :]
        if period & width:
            piece = _piece(wide, covered, x.shape[-1] - period + 1)
            result = piece if result is None else result + piece
            covered += width
    return _made(result)


def weighted(x: Tensor, period: int) -> tuple[Tensor, Tensor]:
    """The plain sum of each window, and the sum weighted by position: 0 for the oldest bar up to period - 1."""
    plain, ranked, covered = x, torch.zeros_like(x), 0
    results: tuple[Tensor, Tensor] | None = None
    for width in _doublings(period):
        half = width // 2
        if half:
            ranked = torch.add(ranked[..., :-half] + ranked[..., half:], plain[..., half:], alpha=half)
            plain = plain[..., :-half] + plain[..., half:]
        if period & width:
            count = x.shape[-1] - period + 1
            piece, rank = _piece(plain, covered, count), _piece(ranked, covered, count)
            rank = torch.add(rank, piece, alpha=covered)
            results = (piece, rank) if results is None else (results[0] + piece, results[1] + rank)
            covered += width
    if results is None:
        raise ValueError("period must be at least 1")
    return results


def variance(x: Tensor, period: int) -> Tensor:
    """The population variance of each window.

    Means and sums of squared deviations are merged pairwise, to avoid cancellation: Chan, Golub and LeVeque, "Updating
    formulae and a pairwise algorithm for computing sample variances" (1979).
    """
    mean, squares, covered = x, torch.zeros_like(x), 0
    results: tuple[Tensor, Tensor] | None = None
    count = x.shape[-1] - period + 1
    for width in _doublings(period):
        half = width // 2
        if half:
            older, newer = mean[..., :-half], mean[..., half:]
            squares = squares[..., :-half] + squares[..., half:] + (newer - older).square_().mul_(half / 2)
            mean = torch.lerp(older, newer, 0.5)
        if period & width:
            piece = _piece(mean, covered, count), _piece(squares, covered, count)
            results = piece if results is None else _merged(results, covered, piece, width)
            covered += width
    if results is None:
        raise ValueError("period must be at least 1")
    return results[1] / period


def highest(x: Tensor, period: int) -> Tensor:
    """The largest value of each window."""
    return _extreme(x, period, torch.maximum)


def lowest(x: Tensor, period: int) -> Tensor:
    """The smallest value of each window."""
    return _extreme(x, period, torch.minimum)


def bars_since_highest(x: Tensor, period: int) -> Tensor:
    """Bars between the largest value and the end of each window; of equal values the latest counts."""
    age = torch.zeros_like(x)
    width = 1
    while width < period:
        step = min(width, period - width)
        older, newer = x[..., :-step], x[..., step:]
        age = torch.where(newer >= older, age[..., step:], age[..., :-step] + step)
        x = torch.maximum(older, newer)
        width += step
    return age


def _doublings(period: int) -> list[int]:
    return [1 << power for power in range(period.bit_length())]


def _piece(wide: Tensor, offset: int, count: int) -> Tensor:
    return wide[..., offset : offset + count]


def _made(result: Tensor | None) -> Tensor:
    if result is None:
        raise ValueError("period must be at least 1")
    return result


def _merged(a: tuple[Tensor, Tensor], n: int, b: tuple[Tensor, Tensor], m: int) -> tuple[Tensor, Tensor]:
    """The mean and the sum of squared deviations of n + m values, from (mean, sum) of n values and of m values."""
    difference = b[0] - a[0]
    mean = torch.add(a[0], difference, alpha=m / (n + m))
    return mean, a[1] + b[1] + difference.square_().mul_(n * m / (n + m))


def _extreme(x: Tensor, period: int, larger: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    width = 1
    while width < period:
        # Overlapping windows are correct, because a value that counts twice does not change an extreme.
        step = min(width, period - width)
        x = larger(x[..., :-step], x[..., step:])
        width += step
    return x
