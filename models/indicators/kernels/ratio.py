"""Division as TA-Lib does it: a fixed result where the divisor is zero, so that no value is ever NaN or infinite."""

import torch
from torch import Tensor


def ratio(numerator: Tensor, divisor: Tensor, undefined: float = 0.0) -> Tensor:
    """numerator / divisor, and `undefined` where the divisor is 0."""
    zero = divisor == 0
    return torch.where(zero, undefined, numerator / divisor.masked_fill(zero, 1.0))
