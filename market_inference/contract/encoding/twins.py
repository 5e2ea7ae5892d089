"""Requests read through their twins (requests.proto): a column of numbers as bytes, without an object per number.

Owns the table of twins, and the guarantee that no byte of a request is lost in its twin. The rules of a column's
numbers are in validation/rules.py.
"""

from typing import Final, TypeAlias

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
"""The twins of public messages. A request without columns has no twin and is parsed directly."""


def read(kind: type[Message], raw: bytes) -> Message | None:
    """The request in the bytes, read through its twin; None when the twin would not hold all bytes.

    A twin loses unpacked numbers, a message in several pieces, and fields unknown to the contract.
    """
    try:
        message = TWINS.get(kind, kind).FromString(raw)
    except DecodeError:
        return None
    message.DiscardUnknownFields()
    return message if message.ByteSize() == len(raw) else None


def rewrite(message: Message) -> bytes:
    """The bytes of a public request in the encoding that a twin holds completely."""
    message.DiscardUnknownFields()
    return message.SerializeToString()


def array(column: bytes) -> Array:
    """Float64 [n] over the column's own memory, read-only. Raises ValueError for a part of a number."""
    return np.frombuffer(column, _NUMBER)
