"""Messages read through their twins (requests.proto): columns of numbers as bytes, not one object a number.

Owns which twin stands for which request, and that nothing of the bytes is lost on the way. What a column may hold is
conformity.py's.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from market.inference.v1 import answers_pb2
from market.inference.v1 import inference_pb2 as public
from market.inference.v1 import requests_pb2 as twins

Array: TypeAlias = NDArray[np.float64]
NUMBER_BYTES: Final = 8
"""What a column's every number takes."""
_NUMBER: Final = np.dtype("<f8")

TWINS: Final[dict[type[Message], type[Message]]] = {
    public.PredictRequest: twins.PredictColumns,
    public.ComputeIndicatorsRequest: twins.ComputeIndicatorsColumns,
    public.AnalyzeRequest: twins.AnalyzeColumns,
    public.StreamRequest: twins.StreamColumns,
    public.Series: twins.SeriesColumns,
    public.Panel: twins.PanelColumns,
}
"""Requests without bulky columns are read as they are."""

ITEMS: Final[dict[type[Message], tuple[type[Any], str]]] = {
    public.PredictRequest: (twins.PredictItems, "series"),
    public.ComputeIndicatorsRequest: (twins.ComputeIndicatorsItems, "panels"),
    public.PredictResponse: (answers_pb2.PredictAnswerItems, "forecasts"),
    public.ComputeIndicatorsResponse: (answers_pb2.ComputeIndicatorsAnswerItems, "panels"),
}
"""Messages that are a list of bulky items and a little more: the twin that leaves the items unread, and their field."""


class Split(NamedTuple):
    """A message's items, each as its own bytes, and the bytes of all the rest."""

    items: Sequence[bytes]
    rest: bytes


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


def split(kind: type[Message], raw: bytes) -> Split | None:
    """The message in the bytes, taken apart; None as in read(). `kind` is one of ITEMS."""
    twin, field = ITEMS[kind]
    try:
        message = twin.FromString(raw)
    except DecodeError:
        return None
    message.DiscardUnknownFields()
    if message.ByteSize() != len(raw):
        return None
    items = tuple(getattr(message, field))
    message.ClearField(field)
    return Split(items, message.SerializeToString())


def rewrite(message: Message) -> bytes:
    """A public request's bytes in the one way that its twin can hold."""
    message.DiscardUnknownFields()
    return message.SerializeToString()


def array(column: bytes) -> Array:
    """Float64 [n] over the column's own memory, so not to be written to. Raises ValueError for a part of a number."""
    return np.frombuffer(column, _NUMBER)
