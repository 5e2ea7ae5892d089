"""Messages split into their items and the rest, and joined again, as bytes.

Owns which messages are a list of items, and the split at the top level of the wire format. An item is not parsed: its
bytes are passed on. A request that merges several calls is joined from their items, and its answer is split for them.
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
"""Messages that are a list of bulky items and a little more, with the list's name."""
_NUMBERS: Final = {kind: kind.DESCRIPTOR.fields_by_name[name].number for kind, name in ITEMS.items()}
_TAGS: Final = {kind: wireformat.header(number, 0)[0] for kind, number in _NUMBERS.items()}


class Split(NamedTuple):
    """A message's items, each as its own bytes over the message's memory, and the bytes of all other fields."""

    items: Sequence[memoryview]
    rest: bytes


def split_items(kind: type[Message], raw: bytes) -> Split | None:
    """The items and the rest of a message of the type `kind`, one of ITEMS; None where the bytes break off.

    The items are the ones at the beginning, where protobuf's writers put them; later ones stay in the rest. The walk is
    written by hand, since it runs for every call and protobuf's parser takes three times as long.
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
    except IndexError:
        return None
    return Split(items, raw[at:]) if at <= end else None


def join_items(kind: type[Message], items: Iterable[memoryview], rest: bytes = b"") -> bytes:
    """The message of the type `kind` that split_items() gives these items and this rest for."""
    number = _NUMBERS[kind]
    pieces: list[bytes | memoryview] = []
    for item in items:
        pieces += (wireformat.header(number, len(item)), item)
    pieces.append(rest)
    return b"".join(pieces)
