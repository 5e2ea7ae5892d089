"""Requests read through their twins (requests.proto): columns of numbers as bytes, not one object a number.

Owns which twin stands for which request, and that nothing of the bytes is lost on the way. What a column may hold is
conformity.py's.
"""

from typing import Final, TypeAlias

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from market.inference.v1 import inference_pb2 as public
from market.inference.v1 import requests_pb2 as twins

Array: TypeAlias = NDArray[np.float64]
NUMBER_BYTES: Final = 8
"""What a column's every number takes."""

TWINS: Final[dict[type[Message], type[Message]]] = {
    public.PredictRequest: twins.PredictColumns,
    public.ComputeIndicatorsRequest: twins.ComputeIndicatorsColumns,
    public.AnalyzeRequest: twins.AnalyzeColumns,
    public.StreamRequest: twins.StreamColumns,
}
"""Requests without bulky columns are read as they are."""


def read(kind: type[Message], raw: bytes) -> Message | None:
    """The request in the bytes, through its twin; None when the twin would not hold all of them.

    That is so where numbers are not packed, a message comes in several pieces, or a field is unknown to the contract.
    """
    try:
        message = TWINS.get(kind, kind).FromString(raw)
    except DecodeError:
        return None
    message.DiscardUnknownFields()
    return message if message.ByteSize() == len(raw) else None


def rewrite(message: Message) -> bytes:
    """A public request's bytes in the one way that its twin can hold."""
    message.DiscardUnknownFields()
    return message.SerializeToString()


def array(column: bytes) -> Array:
    """Float64 [n] over the column's own memory, so not to be written to. Raises ValueError for a part of a number."""
    return np.frombuffer(column, "<f8")
