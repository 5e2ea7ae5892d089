"""Division and comparison as TA-Lib does them, so that no value is NaN or infinite and rounding decides nothing."""

import torch
from torch import Tensor

_NEGLIGIBLE = 1e-14


def ratio(numerator: Tensor, divisor: Tensor, undefined: float = 0.0) -> Tensor:
    """numerator / divisor, and `undefined` where the divisor is 0; both are finite."""
    return (numerator / divisor).nan_to_num_(nan=undefined, posinf=undefined, neginf=undefined)


def negligible(difference: Tensor, scale: Tensor) -> Tensor:
    """Where a difference is rounding only, beside the scale (not negative) of what it is the difference of."""
    return difference.abs() <= scale * _NEGLIGIBLE


def place(x: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
    """Where x lies between bottom (0) and top (1); 0 where these are the same but for rounding."""
    reach = top - bottom
    return torch.where(negligible(reach, top.abs() + bottom.abs()), 0.0, (x - bottom) / reach)
