"""Length-delimited fields of protobuf's wire format: a tag, a length, and the field's bytes.

Owns writing such a field around bytes that are serialised already, and reading their places. Serialised messages that
follow each other are one message with the fields of all, so a message can be joined from serialised parts. No other
file writes tags or lengths.

Source: Protocol Buffers, Encoding.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

_LENGTH_DELIMITED: Final = 2
NUMBER_BYTES: Final = 8
"""Bytes of one number of a packed column of doubles."""


@lru_cache(maxsize=4096)
def header(number: int, length: int) -> bytes:
    """Tag and length of the length-delimited field `number`; `length` bytes of content must follow."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(length)


def pieces(number: int, *content: bytes) -> tuple[bytes, ...]:
    """The length-delimited field `number` in pieces: its header, then the parts of its content, uncopied."""
    return (header(number, sum(map(len, content))), *content)


def read_varint(raw: bytes | memoryview, at: int) -> tuple[int, int]:
    """The varint at an offset, and the offset after the varint.

    Raises IndexError at the end of the bytes, and for a varint of more bytes than protobuf writes.
    """
    byte = raw[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7
        if shift > 63:
            raise IndexError


def places(raw: bytes | memoryview, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The length-delimited fields between two offsets: number, and the offsets where the content starts and ends.

    Raises ValueError or IndexError for a field of another wire type, and where the bytes break off.
    """
    while at < end:
        tag, at = read_varint(raw, at)
        size, at = read_varint(raw, at)
        if tag & 7 != _LENGTH_DELIMITED or at + size > end:
            raise ValueError(f"no length-delimited field at {at}")
        yield tag >> 3, at, at + size
        at += size


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
