"""Messages split into items and the rest, and joined again, as bytes.

Owns the split at the top level of the wire format. Items are not parsed: their bytes are passed on. The gateway joins a
merged request from the items of several calls, and splits the answer for the calls.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from google.protobuf.message import Message

from market_inference.contract.encoding import wireformat
from market_inference.contract.methods import METHODS

ITEMS: Final[dict[type[Message], str]] = {
    **{method.request: method.items for method in METHODS.values() if method.items},
    **{method.response: method.answers for method in METHODS.values() if method.answers},
}
"""Messages with a list of bulky items, and the name of the list."""
_NUMBERS: Final = {kind: kind.DESCRIPTOR.fields_by_name[name].number for kind, name in ITEMS.items()}
_TAGS: Final = {kind: wireformat.header(number, 0)[0] for kind, number in _NUMBERS.items()}


class Split(NamedTuple):
    """The bytes of every item, over the message's memory, and the bytes of all other fields."""

    items: Sequence[memoryview]
    rest: bytes


def rest_of(kind: type[Message], raw: bytes) -> bytes | None:
    """The rest of split_items(), for a message of any number of items."""
    tag, at, end = _TAGS[kind], 0, len(raw)
    try:
        while at < end and raw[at] == tag:
            size, at = raw[at + 1], at + 2
            if size > 0x7F:
                size, at = wireformat.read_varint(raw, at - 1)
            at += size
    except IndexError:
        return None
    return raw[at:] if at <= end else None


def split_items(kind: type[Message], raw: bytes | memoryview, most: int | None = None) -> Split | None:
    """The items and the rest of a message of the type `kind`, a key of ITEMS.

    None where the bytes break off, and for more than `most` items. Only items at the beginning count, where protobuf's
    writers put them; later items stay in the rest. The walk is written by hand: every call is split, and protobuf's
    parser takes three times as long.
    """
    tag, at, end = _TAGS[kind], 0, len(raw)
    items, memory = [], memoryview(raw)
    try:
        while at < end and raw[at] == tag:
            size, at = raw[at + 1], at + 2
            if size > 0x7F:
                size, at = wireformat.read_varint(raw, at - 1)
            items.append(memory[at : at + size])
            at += size
            if most is not None and len(items) > most:
                return None
    except IndexError:
        return None
    return Split(items, bytes(raw[at:])) if at <= end else None


def join_items(kind: type[Message], items: Iterable[memoryview], rest: bytes = b"") -> bytes:
    """The bytes of a message of the type `kind` from its items and the rest: the inverse of split_items()."""
    number = _NUMBERS[kind]
    pieces: list[bytes | memoryview] = []
    for item in items:
        pieces += (wireformat.header(number, len(item)), item)
    pieces.append(rest)
    return b"".join(pieces)
