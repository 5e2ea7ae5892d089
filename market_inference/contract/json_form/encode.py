"""The contract's messages as JSON.

Owns the conversion of protobuf to JSON values. Fields keep the names of the .proto file, and every field is present.
NaN and infinity become null (JSON has neither), an enum value becomes a word in lower case, and a google.rpc.Status
becomes a text and an error type.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.rpc import status_pb2

from market_inference.contract.json_form import mistakes

_REALS = {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}


def to_json(message: Message, names: Mapping[str, str]) -> dict[str, Any]:
    """The message as JSON values; `names` maps field paths in errors to the names that the caller wrote."""
    out: dict[str, Any] = {}
    fields: Any = message.DESCRIPTOR.fields
    for field in fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if isinstance(value, status_pb2.Status):
            out[field.name] = mistakes.text(value, names)
            out[f"{field.name}_type"] = mistakes.error_type(value)
        else:
            out[field.name] = _list(field, value, names) if field.is_repeated else _one(field, value, names)
    return out


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
