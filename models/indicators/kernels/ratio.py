"""Division as TA-Lib does it: a fixed result where the divisor is zero, so that no value is ever NaN or infinite."""

from torch import Tensor


def ratio(numerator: Tensor, divisor: Tensor, undefined: float = 0.0) -> Tensor:
    """numerator / divisor, and `undefined` where the divisor is 0; both are finite."""
    return (numerator / divisor).nan_to_num_(nan=undefined, posinf=undefined, neginf=undefined)
