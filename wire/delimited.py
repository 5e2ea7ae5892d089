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


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
