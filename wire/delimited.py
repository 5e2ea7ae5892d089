"""A length-delimited field of protobuf as it lies on the wire: its tag, its length, its bytes.

For messages that are joined from parts which are bytes already: serialised messages in a row are one message.
"""

from functools import lru_cache


@lru_cache(maxsize=4096)
def head(number: int, length: int) -> bytes:
    """Tag and length of the field `number`; its bytes follow."""
    return _varint(number << 3 | 2) + _varint(length)


def field(number: int, *parts: bytes) -> tuple[bytes, ...]:
    """The field `number` in pieces: its head, and the parts that its bytes are joined from."""
    return (head(number, sum(map(len, parts))), *parts)


def length(raw: bytes, at: int) -> tuple[int, int]:
    """The length that is written at a place, and the place of the bytes that it counts. Raises IndexError."""
    value = shift = 0
    while (byte := raw[at]) > 0x7F:
        value |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
    return value | byte << shift, at + 1


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
