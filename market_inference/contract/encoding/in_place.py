"""Large requests read in place: their columns stay where they are, as views of the request's bytes.

Owns the reading of requests with large items. The parser copies a message of 5 MB, and each column is copied once more
when it is read: milliseconds in which an event loop serves nobody else. Here the lengths are followed from field to
field, and only what stands beside the columns is parsed, as the twin (twins.py).
"""

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from market_inference.contract.encoding import twins, wireformat
from market_inference.contract.encoding.split import ITEMS, split_items

_LARGE_BYTES: Final = 128 << 10
# A message of smaller items is parsed in less time than it is walked.
_LARGE_ITEM_BYTES: Final = 16 << 10


class InPlace:
    """A message: `values` by field, and `rest`, the twin with the other fields."""

    __slots__ = ("_rest", "_values")

    def __init__(self, values: Mapping[str, Any], rest: Message) -> None:
        object.__setattr__(self, "_values", values)
        object.__setattr__(self, "_rest", rest)

    def __getattr__(self, name: str) -> Any:
        found = self._values.get(name)
        return getattr(self._rest, name) if found is None else found

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field of `rest`."""
        setattr(self._rest, name, value)


def read(kind: type[Message], raw: bytes | memoryview) -> Any:
    """The request of the public type `kind` in place, with the fields of its twin: columns are views of `raw`.

    None for a message that does not begin with a large item, and for bytes that the twin does not hold completely (see
    twins.holds()).
    """
    if len(raw) < _LARGE_BYTES or kind not in _COLUMNS:
        return None
    try:
        if wireformat.read_varint(raw, 1)[0] < _LARGE_ITEM_BYTES or (split := split_items(kind, raw)) is None:
            return None
        field, item, columns = _COLUMNS[kind]
        rest = _held(twins.TWINS[kind], split.rest)
        heads = sum([len(wireformat.header(field.number, len(view))) for view in split.items])
        if getattr(rest, field.name) or heads + sum(map(len, split.items)) + len(split.rest) != len(raw):
            return None
        return InPlace({field.name: [_item(view, item, columns) for view in split.items]}, rest)
    except (DecodeError, ValueError, IndexError):
        return None


def _columns(kind: type[Message], name: str) -> tuple[Any, type[Message], Mapping[int, str]]:
    """The field of a request's items, their twin, and the names of its columns by number."""
    items: Any = twins.TWINS[kind].DESCRIPTOR.fields_by_name[name]
    fields = items.message_type.fields
    columns = {field.number: field.name for field in fields if field.type == FieldDescriptor.TYPE_BYTES}
    return items, GetMessageClass(items.message_type), columns


_COLUMNS: Final = {kind: _columns(kind, name) for kind, name in ITEMS.items() if kind in twins.TWINS}


def _item(view: memoryview, item: type[Message], columns: Mapping[int, str]) -> InPlace:
    """Raises ValueError or IndexError for bytes that the twin does not hold."""
    found: dict[str, memoryview] = {}
    others: list[bytes | memoryview] = []
    size = 0
    most = len(item.DESCRIPTOR.fields)
    for count, (number, start, end) in enumerate(wireformat.places(view, 0, len(view)), 1):
        if count > most:  # before the walk takes seconds: a field of two bytes costs a microsecond
            raise ValueError("a field in several pieces, or an unknown one")
        head = wireformat.header(number, end - start)
        size += len(head) + end - start
        name = columns.get(number, "")
        if not name:
            others += (head, view[start:end])
        elif name in found or start == end:
            raise ValueError("a column in several pieces, or an empty one")
        else:
            found[name] = view[start:end]
    if size != len(view):
        raise ValueError("a length in more bytes than it needs")
    return InPlace(found, _held(item, b"".join(others)))


def _held(twin: type[Message], raw: bytes) -> Message:
    message = twin.FromString(raw)
    if not twins.holds(message, raw):
        raise ValueError("bytes that the twin does not hold")
    return message
