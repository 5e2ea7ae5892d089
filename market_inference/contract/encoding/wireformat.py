"""A length-delimited field of protobuf as it lies on the wire: its tag, its length, its bytes.

For messages that are joined from parts which are bytes already: serialised messages in a row are one message.
"""

from functools import lru_cache
from typing import Final

NUMBER_BYTES: Final = 8
"""Bytes of one number of a packed column of doubles."""


@lru_cache(maxsize=4096)
def head(number: int, length: int) -> bytes:
    """Tag and length of the field `number`; its bytes follow."""
    return _written(number << 3 | 2) + _written(length)


def field(number: int, *parts: bytes) -> tuple[bytes, ...]:
    """The field `number` in pieces: its head, and the parts that its bytes are joined from."""
    return (head(number, sum(map(len, parts))), *parts)


def varint(raw: bytes, at: int) -> tuple[int, int]:
    """The number at a place and the place after it. Raises IndexError where there is none: at the end of the bytes, or
    where it goes on for longer than protobuf's numbers do.
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


def _written(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
