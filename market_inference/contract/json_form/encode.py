"""The contract's messages as JSON.

Owns the conversion of protobuf to JSON values. Fields keep the names of the .proto file, and every field is present.
NaN and infinity become null (JSON has neither), an enum value becomes a word in lower case, and a google.rpc.Status
becomes a text and an error type.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.rpc import status_pb2

from market_inference.contract.json_form import mistakes

_REALS = {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}
# Values of a list, and bytes of a message, whose text is made at once.
_PIECE: Final = 4096
_PIECE_BYTES: Final = 32 << 10


def to_json(message: Message, names: Mapping[str, str]) -> dict[str, Any]:
    """The message as JSON values; `names` maps field paths in errors to the names that the caller wrote."""
    out: dict[str, Any] = {}
    for field in _present(message):
        value = getattr(message, field.name)
        if isinstance(value, status_pb2.Status):
            out |= _failure(field, value, names)
        else:
            out[field.name] = _list(field, value, names) if field.is_repeated else _one(field, value, names)
    return out


def texts(message: Message, names: Mapping[str, str], dumps: Callable[[Any], bytes]) -> Iterator[bytes]:
    """The JSON text of to_json(), in pieces of a few thousand values; `dumps` gives the JSON text of a value."""
    if message.ByteSize() <= _PIECE_BYTES:
        yield dumps(to_json(message, names))
        return
    before = b"{"
    for field in _present(message):
        value = getattr(message, field.name)
        if isinstance(value, status_pb2.Status):
            yield before + dumps(_failure(field, value, names))[1:-1]
        else:
            yield before + dumps(field.name) + b":"
            yield from _text(field, value, names, dumps)
        before = b","
    yield b"}" if before == b"," else b"{}"


def _text(
    field: FieldDescriptor, value: Any, names: Mapping[str, str], dumps: Callable[[Any], bytes]
) -> Iterator[bytes]:
    if not field.is_repeated:
        if field.message_type is None:
            yield dumps(_one(field, value, names))
        else:
            yield from texts(value, names, dumps)
        return
    before = b"["
    if field.message_type is None:
        for at in range(0, len(value), _PIECE):
            yield before + dumps(_list(field, value[at : at + _PIECE], names))[1:-1]
            before = b","
    else:
        for one in value:
            yield before
            yield from texts(one, names, dumps)
            before = b","
    yield b"]" if before == b"," else b"[]"


def _present(message: Message) -> Iterator[FieldDescriptor]:
    fields: Any = message.DESCRIPTOR.fields
    return (field for field in fields if not field.has_presence or message.HasField(field.name))


def _failure(field: FieldDescriptor, status: status_pb2.Status, names: Mapping[str, str]) -> dict[str, str]:
    return {field.name: mistakes.text(status, names), f"{field.name}_type": mistakes.error_type(status)}


def _list(field: FieldDescriptor, values: Any, names: Mapping[str, str]) -> list[Any]:
    if field.cpp_type in _REALS:
        return numbers(values)
    return [_one(field, value, names) for value in values]


def _one(field: FieldDescriptor, value: Any, names: Mapping[str, str]) -> Any:
    if field.message_type is not None:
        return to_json(value, names)
    if field.enum_type is not None:
        return word(field.enum_type, value)
    if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
        value = float(str(np.float32(value)))  # 0.9, not 0.8999999761581421
    return value if field.cpp_type not in _REALS or math.isfinite(value) else None


def numbers(values: Any) -> list[float | None]:
    """A column of numbers as JSON: NaN and infinity become null."""
    array = np.asarray(values, dtype=np.float64)
    column: list[float | None] = array.tolist()
    for at in np.flatnonzero(~np.isfinite(array)).tolist():
        column[at] = None
    return column


def word(kind: EnumDescriptor, value: int) -> str:
    """An enum value without the enum's prefix, in lower case: `positive` for SENTIMENT_LABEL_POSITIVE."""
    prefix: str = kind.values_by_number[0].name.removesuffix("UNSPECIFIED")
    name: str = kind.values_by_number[value].name
    return name.removeprefix(prefix).lower()
