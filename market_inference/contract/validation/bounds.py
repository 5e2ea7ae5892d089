"""The lengths of lists, counted in a request's bytes before the request is parsed.

Owns the walk over the wire format. An empty element takes two bytes on the wire, about fifty bytes as an object, and
several microseconds in the explaining check: without the count, a small request would occupy a process for seconds, and
a large request would fill the memory. The limits are the contract's `max_items` and `max_pairs`.

Source: Protocol Buffers, Encoding.
"""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from market_inference.contract import methods
from market_inference.contract.encoding.wireformat import read_varint
from market_inference.contract.errors import InvalidRequestError, Violation
from market_inference.contract.generated import options_pb2

# The count goes on up to this multiple of a limit, so that the error can name the length.
_COUNTED_LIMITS = 4
# Fields of one request, on all levels and unknown fields included: four times the fields of a full StreamRequest.
MOST_FIELDS = 1 << 16
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class _Field:
    """A field with a limit, or with such fields inside.

    `most` elements (0 for a field that is no list) of `width` bytes in a packed run (0 where elements are not packed).
    """

    name: str
    most: int
    width: int
    inside: "dict[int, _Field] | None"


def check(raw: bytes, descriptor: Any, *, inside: bool = True) -> None:
    """Raises InvalidRequestError for a list that is too long. Bytes that are no message are left to the parser.

    `inside=False` counts the lists of the outer message only.
    """
    plan = _plan(descriptor) if inside else _shallow(descriptor)
    try:
        counts: dict[str, int] = {}
        excess: dict[str, int] = {}
        _walk(raw, 0, len(raw), plan, "", counts, excess, [MOST_FIELDS])
    except IndexError:
        return
    for path, most in excess.items():
        _refuse(path, most, str(counts[path]))


def _walk(
    raw: bytes,
    at: int,
    end: int,
    plan: dict[int, _Field],
    prefix: str,
    counts: dict[str, int],
    excess: dict[str, int],
    left: list[int],
) -> None:
    """Count the elements of every list between two offsets into `counts`, by path; `excess` gets the broken limits.

    `left` holds the number of fields that may still come, of all levels together.
    """
    while at < end:
        left[0] -= 1
        if left[0] < 0:
            raise InvalidRequestError([Violation("", f"too many fields (max {MOST_FIELDS})", "max_fields")])
        tag, at = read_varint(raw, at)
        kind = tag & 7
        field = plan.get(tag >> 3)
        size = 0
        if kind == _BYTES:
            size, at = read_varint(raw, at)
        elif kind == _VARINT:
            _, at = read_varint(raw, at)
        elif kind == _FIXED64:
            size = 8
        elif kind == _FIXED32:
            size = 4
        if field is not None:
            path = f"{prefix}{field.name}"
            if field.most:
                seen = counts.get(path, 0)
                count = counts[path] = seen + (size // field.width if field.width else 1)
                if count > field.most:
                    excess[path] = field.most
                    if count > _COUNTED_LIMITS * field.most:
                        _refuse(path, field.most, f"more than {_COUNTED_LIMITS * field.most}")
                path = f"{path}[{seen}]"
            # The parser merges a single message that comes several times, so its lists are counted under one path.
            if field.inside is not None and kind == _BYTES:
                _walk(raw, at, min(at + size, end), field.inside, f"{path}.", counts, excess, left)
        at += size


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
            width = 8 if field.type == FieldDescriptor.TYPE_DOUBLE else 0
            found[field.number] = _Field(field.name, most, width, inside or None)
    return found


@cache
def _shallow(descriptor: Descriptor) -> dict[int, _Field]:
    return {number: replace(field, inside=None) for number, field in _plan(descriptor).items()}


def _most(field: FieldDescriptor) -> int:
    rules = methods.field_rules(field)
    return rules.map.max_pairs or rules.repeated.max_items
