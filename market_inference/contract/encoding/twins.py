"""Messages read through their twins (requests.proto): columns of numbers as bytes, not one object a number.

Owns which twin stands for which request, and that nothing of the bytes is lost on the way. What a column may hold is
conformity.py's.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from market_inference.contract.encoding import wireformat
from market_inference.contract.generated import inference_pb2 as public
from market_inference.contract.generated import requests_pb2 as twins
from market_inference.contract.methods import METHODS

Array: TypeAlias = NDArray[np.float64]
NUMBER_BYTES: Final = wireformat.NUMBER_BYTES
_NUMBER: Final = np.dtype("<f8")

TWINS: Final[dict[type[Message], type[Message]]] = {
    **{method.request: method.twin for method in METHODS.values() if method.twin is not method.request},
    public.Series: twins.SeriesColumns,
    public.Panel: twins.PanelColumns,
}
"""Requests without bulky columns are read as they are."""

ITEMS: Final[dict[type[Message], str]] = {
    **{method.request: method.items for method in METHODS.values() if method.items},
    **{method.response: method.answers for method in METHODS.values() if method.answers},
}
"""Messages that are a list of bulky items and a little more, and the list's name."""
_NUMBERS: Final = {kind: kind.DESCRIPTOR.fields_by_name[name].number for kind, name in ITEMS.items()}
_TAGS: Final = {kind: wireformat.head(number, 0)[0] for kind, number in _NUMBERS.items()}


class Split(NamedTuple):
    """A message's items, each as its own bytes over the message's memory, and the bytes of all the rest."""

    items: Sequence[memoryview]
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
    """The message in the bytes, one of ITEMS, taken apart; None where they break off.

    Its items are those that come first, as everybody writes them; any later ones are in the rest. Neither is looked
    into. By hand, since every call is taken apart, and protobuf takes three times as long.
    """
    tag, at, end = _TAGS[kind], 0, len(raw)
    items, memory = [], memoryview(raw)
    try:
        while at < end and raw[at] == tag:
            size, at = raw[at + 1], at + 2
            if size > 0x7F:
                size, at = wireformat.varint(raw, at - 1)
            items.append(memory[at : at + size])
            at += size
    except IndexError:
        return None
    return Split(items, raw[at:]) if at <= end else None


def join(kind: type[Message], items: Iterable[memoryview], rest: bytes = b"") -> bytes:
    """What split() takes apart."""
    number = _NUMBERS[kind]
    pieces: list[bytes | memoryview] = []
    for item in items:
        pieces += (wireformat.head(number, len(item)), item)
    pieces.append(rest)
    return b"".join(pieces)


def rewrite(message: Message) -> bytes:
    """A public request's bytes in the one way that its twin can hold."""
    message.DiscardUnknownFields()
    return message.SerializeToString()


def array(column: bytes) -> Array:
    """Float64 [n] over the column's own memory, so not to be written to. Raises ValueError for a part of a number."""
    return np.frombuffer(column, _NUMBER)
