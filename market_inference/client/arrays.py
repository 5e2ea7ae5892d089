"""Float64 arrays into and out of `repeated double` fields.

Owns the two directions. Both copy memory and make no Python object per number.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

from market_inference.contract.encoding import wireformat

Floats = NDArray[np.float64]


def write(message: Message, field: str, values: Floats) -> None:
    """Append `values` [n] float64 to the `repeated double` field called `field`.

    The bytes of a packed field are the little-endian array in memory, so that parsing copies once. `extend` converts
    element by element: 40 times slower at 10,000 values.
    """
    raw = np.ascontiguousarray(values, dtype="<f8").tobytes()
    number = message.DESCRIPTOR.fields_by_name[field].number
    message.MergeFromString(b"".join(wireformat.pieces(number, raw)))


def read(column: Iterable[float] | bytes) -> Floats:
    """A `repeated double` field, or the bytes that a twin has in its place, as a new array [n] float64."""
    if isinstance(column, bytes):
        return np.frombuffer(column, "<f8").copy()
    field: Any = column
    return np.array(field, dtype=np.float64)
