"""The lengths of lists, counted in a request's bytes before the request is parsed.

Owns the walk over the wire format. An empty element takes two bytes on the wire, about fifty bytes as an object, and
several microseconds in the explaining check: without the count, a small request would occupy a process for seconds, and
a large request would fill the memory. The limits are the contract's `max_items` and `max_pairs`.

Source: Protocol Buffers, Encoding.
"""

import re
from collections.abc import Callable, Sized
from dataclasses import dataclass, replace
from functools import cache
from operator import attrgetter
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from market_inference.contract import methods
from market_inference.contract.encoding.wireformat import read_varint
from market_inference.contract.errors import InvalidRequestError, Violation
from market_inference.contract.generated import options_pb2

# The count goes on up to this multiple of a limit, so that the error can name the length.
_COUNTED_LIMITS = 4
UNKNOWN_FIELDS = 512
"""Fields of one request beyond those of a full request: of a newer contract, or sent several times."""
MOST_FIELDS = 1 << 14
"""Fields of one request at most, on all levels: a full StreamRequest would have millions."""
# Fewer bytes hold so few elements that their objects cost less than the look at every list.
_FEW_BYTES = 4 << 10
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINTS = -1
_VARINT_TYPES = {FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_UINT32}
# A varint has one byte below these, the last one.
_CONTINUED = bytes(range(0x80, 0x100))
_LONG_VARINT = re.compile(rb"[\x80-\xff]{0,9}[\x00-\x7f]").match


@dataclass(frozen=True, slots=True)
class _Field:
    """A field with a limit, or with such fields inside.

    `most` elements (0 for a field that is no list) of `width` bytes in a packed run (0 where elements are not packed,
    _VARINTS for elements of any width).
    """

    name: str
    most: int
    width: int
    inside: "dict[int, _Field] | None"


def check(raw: bytes, descriptor: Any, *, inside: bool = True) -> None:
    """Raises InvalidRequestError for a list that is too long, and for more fields than a request can need.

    `inside=False` counts the lists and fields of the outer message only. Bytes that are no message are left to the
    parser. A field costs up to a microsecond of the interpreter's time, hence the limit of fields.
    """
    plan = _plan(descriptor) if inside else _shallow(descriptor)
    try:
        counts: dict[str, int] = {}
        excess: dict[str, int] = {}
        left = _walk(raw, 0, len(raw), plan, "", counts, excess, most_fields(descriptor, inside=inside))
    except IndexError:
        return
    for path, most in excess.items():
        _refuse(path, most, str(counts[path]) if left >= 0 else f"at least {counts[path]}")
    if left < 0:
        most = most_fields(descriptor, inside=inside)
        raise InvalidRequestError([Violation("", f"too many fields (max {most})", "max_fields")])


def check_parsed(raw: bytes, message: Any, descriptor: Any) -> None:
    """As check() for a request that is parsed already, perhaps as its twin: a look at the lengths of its lists.

    Lists inside of lists are left out. Raises InvalidRequestError.
    """
    if len(raw) > _FEW_BYTES:
        for elements, most in _lists(descriptor):
            if len(elements(message)) > most:
                check(raw, descriptor)


@cache
def most_fields(descriptor: Descriptor, *, inside: bool = True) -> int:
    """The most fields of a request: those of a full one, with each number of a list alone, and UNKNOWN_FIELDS."""
    return min(_fields(descriptor, _plan(descriptor) if inside else _shallow(descriptor)) + UNKNOWN_FIELDS, MOST_FIELDS)


def _fields(descriptor: Descriptor, plan: dict[int, _Field]) -> int:
    """The fields of a full message, as far as the walk goes."""
    count = 0
    for field in descriptor.fields:
        planned = plan.get(field.number)
        inner = 0
        if planned is not None and planned.inside and field.message_type is not None:
            inner = _fields(field.message_type, planned.inside)
        count += (planned.most if planned is not None and planned.most else 1) * (1 + inner)
    return count


def _walk(
    raw: bytes,
    at: int,
    end: int,
    plan: dict[int, _Field],
    prefix: str,
    counts: dict[str, int],
    excess: dict[str, int],
    left: int,
) -> int:
    """Count the elements of every list between two offsets into `counts`, by path; `excess` gets the broken limits.

    `left` fields may come, of all levels together: the walk returns the rest, or less than 0 where it ended early. A
    tag of several bytes, of an unknown field, takes as long as that many fields, and counts as such.
    """
    while at < end:
        left -= 1
        if left < 0:
            return left
        tag = raw[at]
        at += 1
        if tag > 0x7F:
            first = at
            tag, at = read_varint(raw, at - 1)
            left -= at - first
        kind = tag & 7
        size = 0
        if kind == _BYTES:
            size = raw[at]
            at += 1
            if size > 0x7F:
                size, at = read_varint(raw, at - 1)
        elif kind == _VARINT:
            if raw[at] > 0x7F:
                at = _end_of_varint(raw, at)
            else:
                at += 1
        elif kind == _FIXED64:
            size = 8
        elif kind == _FIXED32:
            size = 4
        field = plan.get(tag >> 3)
        if field is not None:
            path = prefix + field.name
            if field.most:
                seen = counts.get(path, 0)
                count = counts[path] = seen + (
                    1 if kind != _BYTES or not field.width else _packed(raw[at : at + size], field.width)
                )
                if count > field.most:
                    excess[path] = field.most
                    if count > _COUNTED_LIMITS * field.most:
                        _refuse(path, field.most, f"more than {_COUNTED_LIMITS * field.most}")
            # The parser merges a single message that comes several times, so its lists are counted under one path.
            if size and field.inside is not None and kind == _BYTES:
                inner = f"{path}[{seen}]." if field.most else f"{path}."
                left = _walk(raw, at, min(at + size, end), field.inside, inner, counts, excess, left)
                if left < 0:
                    return left
        at += size
    return left


def _packed(run: bytes, width: int) -> int:
    return len(run.translate(None, _CONTINUED)) if width == _VARINTS else len(run) // width


def _end_of_varint(raw: bytes, at: int) -> int:
    """As read_varint(), for the offset alone: several times as fast."""
    found = _LONG_VARINT(raw, at)
    if found is None:
        raise IndexError
    return found.end()


def _refuse(path: str, most: int, got: str) -> None:
    raise InvalidRequestError([Violation(path, f"too long (max {most}, got {got})", "repeated.max_items")])


@cache
def _plan(descriptor: Descriptor) -> dict[int, _Field]:
    """The fields that are lists with a limit, or hold such lists.

    Columns are left out, since numbers are cheap to check, and so is the content of `items`: items hold columns alone,
    and an item with a mistake is refused alone.
    """
    found = {}
    for field in descriptor.fields:
        if methods.column_rules(field).ByteSize():
            continue
        items = field.GetOptions().Extensions[options_pb2.items]
        inside = _plan(field.message_type) if field.message_type is not None and not items else None
        most = _most(field) if field.is_repeated else 0
        if most or inside:
            found[field.number] = _Field(field.name, most, _width(field), inside or None)
    return found


@cache
def _shallow(descriptor: Descriptor) -> dict[int, _Field]:
    return {number: replace(field, inside=None) for number, field in _plan(descriptor).items()}


@cache
def _lists(descriptor: Descriptor) -> tuple[tuple[Callable[[Any], Sized], int], ...]:
    """The lists of a message and of its parts, and their limits."""
    found = [(field.name, field) for field in _plan(descriptor).values()]
    for name, field in found:
        if field.inside is not None and not field.most:
            found += [(f"{name}.{inner.name}", inner) for inner in field.inside.values()]
    return tuple([(attrgetter(name), field.most) for name, field in found if field.most])


def _width(field: FieldDescriptor) -> int:
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return 8
    return _VARINTS if field.type in _VARINT_TYPES else 0


def _most(field: FieldDescriptor) -> int:
    rules = methods.field_rules(field)
    return rules.map.max_pairs or rules.repeated.max_items
