"""One column of numbers: a list, an array, or a column of a frame.

Owns the conversion to float64. Masked and missing values (None, NaN, pandas' NA and NaT) become NaN.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from market_inference.client.arrays import Floats
from market_inference.client.inputs.arguments import shown
from market_inference.errors import ArgumentError


def column(values: object, field: str = "values", *, flags: bool = False) -> Floats:
    """One column [n] float64; an array [n, 1] is one column, too. `flags`: True and False are 1 and 0.

    Raises ArgumentError.
    """
    array = as_array(values, field)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 0:
        raise ArgumentError(field, f"expected a list or an array of numbers (one dimension), got {shown(values)}")
    if array.ndim != 1:
        raise ArgumentError(field, f"expected one dimension, got shape {array.shape}")
    if array.dtype.kind in ("iufb" if flags else "iuf"):
        return array.astype(np.float64, copy=False)
    if array.dtype.kind not in "OUT":
        raise ArgumentError(field, f"expected numbers, got {array.dtype}")
    return _from_objects(array, field, flags)


def as_array(values: Any, field: str) -> NDArray[Any]:
    """The values as numpy sees them, masked values as missing ones."""
    if isinstance(values, np.ma.MaskedArray):
        kept = values.astype(np.float64) if values.dtype.kind in "iufb" else values.astype(object)
        return np.asarray(np.ma.filled(kept, np.nan))
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise ArgumentError(field, f"expected a list or an array of numbers: {error}") from None


def is_missing(value: object) -> bool:
    """None, NaN, NaT, pandas' NA or numpy's masked."""
    if value is None or value is np.ma.masked:
        return True
    kind = type(value).__name__
    return kind in {"NAType", "NaTType"} or (isinstance(value, float | np.floating) and bool(np.isnan(value)))


def _from_objects(values: Iterable[Any], field: str, flags: bool) -> Floats:
    found = []
    for at, value in enumerate(values):
        if is_missing(value):
            found.append(np.nan)
            continue
        try:
            if isinstance(value, str | bytes) or (isinstance(value, bool | np.bool_) and not flags):
                raise TypeError
            found.append(float(value))
        except (TypeError, ValueError):
            raise ArgumentError(field, f"expected numbers, got {shown(value)} at position {at}") from None
        except OverflowError:
            raise ArgumentError(
                field, f"expected numbers within float64, got {shown(value)} at position {at}"
            ) from None
    return np.array(found, dtype=np.float64)
