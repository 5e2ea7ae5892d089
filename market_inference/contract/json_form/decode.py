"""JSON to the contract's messages.

Owns the conversion of parsed JSON to protobuf. Names and shapes follow protobuf's JSON mapping, with two differences.
A column of numbers is set in one call, at tens of nanoseconds an element instead of a microsecond, and accepts JSON
numbers only. And an error names the field by the full path. A list above the contract's `max_items` is refused before
its elements become objects: an empty element takes three bytes of JSON and about a hundred bytes as a message.
"""

from collections.abc import Sized
from typing import Any, TypeVar, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from market_inference.contract import methods
from market_inference.contract.errors import InvalidRequestError, Violation

M = TypeVar("M", bound=Message)
_WANTED = {
    FieldDescriptor.CPPTYPE_STRING: "a string",
    FieldDescriptor.CPPTYPE_BOOL: "true or false",
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
    FieldDescriptor.CPPTYPE_FLOAT: "a number",
    FieldDescriptor.CPPTYPE_INT64: "a whole number from -9223372036854775808 to 9223372036854775807",
    FieldDescriptor.CPPTYPE_UINT64: "a whole number from 0 to 18446744073709551615",
}
_NUMBERS = {int, float}
# Numbers set by one call, which holds the interpreter: about a millisecond.
_RUN = 1 << 14


def message(kind: type[M], body: Any) -> M:
    """Convert a JSON object to a message; a null value leaves the field unset. Raises InvalidRequestError."""
    target = kind()
    _fill(target, body, "")
    return target


def _fill(target: Message, body: Any, path: str) -> None:
    if not isinstance(body, dict):
        raise _wrong(path, "an object", body)
    for name, value in body.items():
        field = _field(target, name, path)
        if value is not None:
            _set(target, field, value, f"{path}.{name}" if path else name)


def _field(target: Message, name: str, path: str) -> FieldDescriptor:
    fields = target.DESCRIPTOR.fields_by_name
    field = fields.get(name) or target.DESCRIPTOR.fields_by_camelcase_name.get(name)
    if field is None:
        where = f"{path}.{name}" if path else name
        raise InvalidRequestError([Violation(where, f"is not a field; there are: {', '.join(fields)}", "json")])
    return cast("FieldDescriptor", field)


def _set(target: Message, field: FieldDescriptor, value: Any, path: str) -> None:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        if isinstance(value, dict):
            check_length(field, value, path)
        _set_map(getattr(target, field.name), kind.fields_by_name["value"], value, path)
    elif field.is_repeated:
        _extend(getattr(target, field.name), field, value, path)
    elif kind is not None:
        part = getattr(target, field.name)
        part.SetInParent()
        _fill(part, value, path)
    else:
        try:
            setattr(target, field.name, _scalar(field, value))
        except (TypeError, ValueError, OverflowError) as error:
            raise _wrong(path, _wanted(field), value) from error


def _set_map(target: Any, field: FieldDescriptor, value: Any, path: str) -> None:
    if not isinstance(value, dict):
        raise _wrong(path, "an object", value)
    for key, one in value.items():
        try:
            target[key] = _scalar(field, one)
        except (TypeError, ValueError, OverflowError) as error:
            raise _wrong(f"{path}.{key}", _wanted(field), one) from error


def _extend(target: Any, field: FieldDescriptor, value: Any, path: str) -> None:
    if not isinstance(value, list):
        raise _wrong(path, "a list", value)
    if not methods.column_rules(field).ByteSize():  # a column that is too long fails with its item alone
        check_length(field, value, path)
    if field.message_type is not None:
        for at, one in enumerate(value):
            _fill(target.add(), one, f"{path}[{at}]")
    elif field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE and _extended(target, value):
        return
    else:
        for at, one in enumerate(value):
            try:
                target.append(_scalar(field, one))
            except (TypeError, ValueError, OverflowError) as error:
                raise _wrong(f"{path}[{at}]", _wanted(field), one) from error


def _extended(target: Any, value: list[float]) -> bool:
    """Set the whole column. Returns False, with the column empty, for a value that is no number of a double's range."""
    for at in range(0, len(value), _RUN):
        run = value[at : at + _RUN]
        try:
            if set(map(type, run)) <= _NUMBERS:
                target.extend(run)
                continue
        except OverflowError:
            pass
        del target[:]
        return False
    return True


def check_length(field: FieldDescriptor, value: Sized, path: str) -> None:
    """Raises InvalidRequestError for more elements than the contract's `max_items` or `max_pairs`."""
    found = methods.field_rules(field)
    most = found.map.max_pairs or found.repeated.max_items
    if most and len(value) > most:
        raise InvalidRequestError([Violation(path, f"too long (max {most}, got {len(value)})", "repeated.max_items")])


def _scalar(field: FieldDescriptor, value: Any) -> Any:
    """The value for protobuf's setter. The setter refuses wrong types, except a bool for a number: refused here."""
    if isinstance(value, bool) and field.cpp_type != FieldDescriptor.CPPTYPE_BOOL:
        raise TypeError
    if field.cpp_type == FieldDescriptor.CPPTYPE_UINT32 and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _wanted(field: FieldDescriptor) -> str:
    """The values that a field takes, in words."""
    if field.cpp_type == FieldDescriptor.CPPTYPE_UINT32:
        rules = methods.field_rules(field).uint32
        return f"a whole number from {rules.gte} to {rules.lte or 2**32 - 1}"
    return _WANTED[field.cpp_type]


def _wrong(path: str, wanted: str, value: Any) -> InvalidRequestError:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15:
        got = f"{value:g}"
    else:
        names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
        got = names.get(type(value), "a number")
    is_missing = value is None and wanted == "a number" and path.endswith("]")
    remedy = ": fill a missing value, or leave its row out" if is_missing else ""
    return InvalidRequestError([Violation(path, f"must be {wanted} (got {got}){remedy}", "json")])
