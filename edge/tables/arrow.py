"""The size of an Arrow IPC stream once it is read, from the headers of its messages.

Owns the limits of rows and bytes: compressed buffers and columns without buffers hold any number of rows in few bytes.
"""

import struct
from typing import Final

MOST_ROWS: Final = 1 << 20
"""The most rows of a table, CSV too: as many values as the largest request holds."""
MOST_CELLS: Final = 8 * MOST_ROWS
"""The most values of an Arrow stream; the memory is counted as well (tables/size.py)."""
MOST_COLUMNS: Final = 4096
"""The most columns of a table, CSV too: reading one takes 0.1 ms, and a wide table has some ten for each instrument."""
MOST_FIELDS: Final = MOST_ROWS
"""The most fields of CSV: reading as many takes a core for some seconds."""
MOST_BYTES: Final = 64 << 20
"""The most bytes of all columns of an Arrow stream."""
CATEGORY_BYTES: Final = 64
"""The mean length of the categories in the rows, above which more than 1 MiB of these are too many bytes."""
# Bytes that a message of one row takes at least, as polars writes messages, and a buffer in a batch's list. A batch may
# point to the list of another one: without a limit, 250 kB would be lists of a hundred million buffers.
_MESSAGE_BYTES, _BUFFER_BYTES = 96, 16
_CONTINUATION: Final = 0xFFFFFFFF
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3


def check(raw: bytes) -> tuple[int, int, int]:
    """The rows, values and bytes. Raises ValueError for a damaged stream, and for one above the limits."""
    rows = cells = size = 0
    buffers = len(raw) // _BUFFER_BYTES
    try:
        for message, body in _messages(raw):
            batch = _batch(raw, message)
            if batch is not None:
                length = _count(_int64(raw, _field(raw, batch, 0)))
                rows += length
                count = _columns(raw, batch)
                check_most("columns", count, MOST_COLUMNS)
                cells += length * count
                lengths = _buffers(raw, batch, buffers)
                buffers -= len(lengths)
                size += _size(raw, batch, body, lengths)
    except (struct.error, IndexError):
        raise ValueError("an Arrow IPC stream that cannot be read: a message is damaged") from None
    check_most("rows", rows, MOST_ROWS)
    check_most("bytes once read", size, MOST_BYTES)
    check_most("values", cells, MOST_CELLS)
    return rows, cells, size


def check_categories(size: int, rows: int) -> None:
    """Raises ValueError for categories that the headers do not show: rows refer to these by numbers."""
    check_most("bytes of categories in its rows", size, max(1 << 20, CATEGORY_BYTES * rows))


def check_most(what: str, got: int, most: int) -> None:
    """Raises ValueError above the limit."""
    if got > most:
        raise ValueError(f"an Arrow IPC stream with too many {what} (max {most}, got {got})")


def _messages(raw: bytes) -> list[tuple[int, int]]:
    """The positions of each message's table and of its body."""
    found = []
    at = 0
    while at < len(raw):
        mark, length = struct.unpack_from("<Ii", raw, at)
        if mark != _CONTINUATION or length < 0:
            raise IndexError
        if length == 0:
            if at + 8 < len(raw):
                raise ValueError(f"an Arrow IPC stream with {len(raw) - at - 8} bytes behind its end")
            break
        message = _table(raw, at + 8)
        body = at + 8 + length
        found.append((message, body))
        if len(found) > len(raw) // _MESSAGE_BYTES:
            raise IndexError
        after = body + _int64(raw, _field(raw, message, 3))
        if not body <= after <= len(raw):
            raise IndexError
        at = after
    return found


def _batch(raw: bytes, message: int) -> int | None:
    """The position of the message's RecordBatch; None for a schema."""
    kind = raw[_present(_field(raw, message, 1))]
    if kind not in (_DICTIONARY_BATCH, _RECORD_BATCH):
        return None
    header = _table(raw, _present(_field(raw, message, 2)))
    return _table(raw, _present(_field(raw, header, 1))) if kind == _DICTIONARY_BATCH else header


def _columns(raw: bytes, batch: int) -> int:
    """The number of the batch's columns, by its field nodes; columns of nulls have no buffers."""
    vector = _field(raw, batch, 1)
    if vector is None:
        return 0
    return int(struct.unpack_from("<I", raw, vector + struct.unpack_from("<I", raw, vector)[0])[0])


def _buffers(raw: bytes, batch: int, most: int) -> list[tuple[int, int]]:
    """Offset and length of the batch's buffers, as its list has them."""
    vector = _field(raw, batch, 2)
    if vector is None:
        return []
    vector += struct.unpack_from("<I", raw, vector)[0]
    [count] = struct.unpack_from("<I", raw, vector)
    if count > most:
        raise IndexError
    buffers = list(struct.iter_unpack("<qq", raw[vector + 4 : vector + 4 + _BUFFER_BYTES * count]))
    if len(buffers) != count or any(offset < 0 or length < 0 for offset, length in buffers):
        raise IndexError
    return buffers


def _size(raw: bytes, batch: int, body: int, buffers: list[tuple[int, int]]) -> int:
    """The bytes of the batch's buffers once decompressed; a compressed buffer begins with its length, -1 for plain."""
    if _field(raw, batch, 3) is None:
        return sum(length for _, length in buffers)
    known = [_int64(raw, body + offset) if length else 0 for offset, length in buffers]
    return sum(length if size == -1 else _count(size) for size, (_, length) in zip(known, buffers, strict=True))


def _count(number: int) -> int:
    """A number of rows or bytes. A negative number would make room for others."""
    if number < 0:
        raise IndexError
    return number


def _table(raw: bytes, at: int) -> int:
    """The table that an offset refers to."""
    return at + int(struct.unpack_from("<I", raw, at)[0])


def _field(raw: bytes, table: int, slot: int) -> int | None:
    """The position of a table's field; None for a field that has its default."""
    layout = table - struct.unpack_from("<i", raw, table)[0]
    if layout < 0:
        raise IndexError
    size = struct.unpack_from("<H", raw, layout)[0]
    offset = struct.unpack_from("<H", raw, layout + 4 + 2 * slot)[0] if 6 + 2 * slot <= size else 0
    return table + int(offset) if offset else None


def _present(at: int | None) -> int:
    if at is None:
        raise IndexError
    return at


def _int64(raw: bytes, at: int | None) -> int:
    return 0 if at is None else int(struct.unpack_from("<q", raw, at)[0])
