"""Lists that are longer than the contract allows, found in the bytes, before a message is made of them.

Owns the walk over the wire format. An empty element is two bytes on the wire and some fifty as an object, and
protovalidate takes a tenth of a millisecond and a violation of its own for it: without this, a small request would hold
a process for minutes and a large one would fill its memory. The limits are the contract's `max_items` and `max_pairs`.

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

# Counting goes on for so many times the limit, to say how many there were.
_PATIENCE = 4
# Four times what a full StreamRequest holds; fields unknown to the contract cost time too.
MOST_FIELDS = 1 << 16
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class _Field:
    """`most` elements (0: no list), each `width` bytes in a packed run (0: one by one); `inside` is what they hold."""

    name: str
    most: int
    width: int
    inside: "dict[int, _Field] | None"


def check(raw: bytes, descriptor: Any, *, inside: bool = True) -> None:
    """Raises InvalidRequestError for a list that is too long. Bytes that are no message are left to the parser.

    `inside=False` leaves lists of messages within the message to whoever reads those.
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
    """Count the elements of every list between two places into `counts`, by path; `excess` gets the broken limits.

    `left` holds how many fields may still come, of all levels together.
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
                    if count > _PATIENCE * field.most:
                        _refuse(path, field.most, f"more than {_PATIENCE * field.most}")
                path = f"{path}[{seen}]"
            # A single message that comes several times is merged, so what it holds is counted under one path.
            if field.inside is not None and kind == _BYTES:
                _walk(raw, at, min(at + size, end), field.inside, f"{path}.", counts, excess, left)
        at += size


def _refuse(path: str, most: int, got: str) -> None:
    raise InvalidRequestError([Violation(path, f"too long (max {most}, got {got})", "repeated.max_items")])


@cache
def _plan(descriptor: Descriptor) -> dict[int, _Field]:
    """The fields that are lists with a limit, or hold such lists. Columns are left out: numbers are cheap to check.

    So are the insides of `items`: what is wrong in one of them is its own affair, and they hold columns alone.
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
