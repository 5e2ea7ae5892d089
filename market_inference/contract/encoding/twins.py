"""Messages read through their twins (requests.proto, answers.proto): a column of numbers as bytes, without an object
per number.

Owns the table of twins, and the guarantee that no byte of a message is lost in its twin. The rules of a column's
numbers are in validation/rules.py.
"""

from typing import Final, TypeAlias

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from market_inference.contract.encoding import wireformat
from market_inference.contract.generated import answers_pb2 as answers
from market_inference.contract.generated import inference_pb2 as public
from market_inference.contract.generated import requests_pb2 as twins
from market_inference.contract.methods import METHODS

Array: TypeAlias = NDArray[np.float64]
NUMBER_BYTES: Final = wireformat.NUMBER_BYTES
_NUMBER: Final = np.dtype("<f8")
# From this size on, a message is measured in parts.
_LARGE_BYTES: Final = 1 << 20

TWINS: Final[dict[type[Message], type[Message]]] = {
    **{method.request: method.twin for method in METHODS.values() if method.twin is not method.request},
    public.Series: twins.SeriesColumns,
    public.Panel: twins.PanelColumns,
    public.PredictResponse: answers.PredictAnswer,
    public.SeriesForecast: answers.SeriesForecastAnswer,
    public.Forecast: answers.ForecastAnswer,
    public.ComputeIndicatorsResponse: answers.ComputeIndicatorsAnswer,
    public.PanelIndicators: answers.PanelIndicatorsAnswer,
    public.IndicatorSet: answers.IndicatorSetAnswer,
}
"""The twins of public messages. A message without columns has no twin and is parsed directly."""


def parse(kind: type[Message], raw: bytes) -> Message | None:
    """The message in the bytes, parsed as its twin; None for bytes that are no such message."""
    try:
        return TWINS.get(kind, kind).FromString(raw)
    except DecodeError:
        return None


def read(kind: type[Message], raw: bytes) -> Message | None:
    """As parse(); None also when the twin does not hold all bytes."""
    message = parse(kind, raw)
    return message if message is not None and holds(message, raw) else None


def holds(message: Message, raw: bytes, *, unknown: bool = False) -> bool:
    """Whether the twin parsed from the bytes holds all of them. Drops the message's unknown fields.

    A twin loses unpacked numbers, a message in several pieces, and fields unknown to the contract. With `unknown` the
    unknown fields stay and count as held; False may then be the answer for a message of 1 MiB or more with such fields.
    """
    if not unknown:
        message.DiscardUnknownFields()
    size = message.ByteSize() if len(raw) < _LARGE_BYTES else _size(message, len(raw))
    return size == len(raw)


def _size(message: Message, about: int) -> int:
    """As ByteSize(), of a message of about so many bytes.

    ByteSize() writes the message into memory of that size: 5 MB take ten milliseconds, and their parts half of one.
    """
    fields = message.ListFields() if about >= _LARGE_BYTES else ()
    if not any(_is_message(field) for field, _ in fields):
        return message.ByteSize()
    size, others = 0, type(message)()
    for field, value in fields:
        if _is_message(field):
            found = value if field.is_repeated else (value,)
            sizes = [_size(part, about // len(found)) for part in found]
            size += sum([part + len(wireformat.header(field.number, part)) for part in sizes])
        elif field.is_repeated:
            getattr(others, field.name).MergeFrom(value)
        else:
            setattr(others, field.name, value)
    return size + others.ByteSize()


def _is_message(field: FieldDescriptor) -> bool:
    return field.message_type is not None and not field.message_type.GetOptions().map_entry


def rewrite(message: Message) -> bytes:
    """The bytes of a public message in the encoding that a twin holds completely."""
    message.DiscardUnknownFields()
    return message.SerializeToString()


def array(column: bytes | memoryview) -> Array:
    """Float64 [n] over the column's own memory, read-only. Raises ValueError for a part of a number.

    A view is copied: it may begin at any address, and some libraries refuse such an array.
    """
    return np.frombuffer(bytes(column), _NUMBER)


def varints(values: NDArray[np.signedinteger]) -> bytes:
    """The content of a packed field of integers: an array [n] of numbers from 0."""
    bits = int(values.max(initial=0)).bit_length()
    if bits <= 7:
        return values.astype(np.uint8).tobytes()
    groups = values[:, None] >> np.arange(0, bits, 7)
    kept = groups > 0
    kept[:, 0] = True
    octets = (groups & 0x7F).astype(np.uint8)
    octets[:, :-1] |= kept[:, 1:].view(np.uint8) << 7
    return octets[kept].tobytes()
