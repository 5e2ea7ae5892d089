"""The size of a table before it is read: rows, cells, and the memory while it is read.

Owns the limits of rows and cells, and the bytes of a row and of a cell, as measured by the peak of the resident memory.
What a table may take of the edge's budget belongs to edge/body.py.
"""

from dataclasses import dataclass
from typing import Final

from edge import body as bodies
from edge.tables import arrow
from edge.tables.arrow import MOST_FIELDS, MOST_ROWS
from edge.tables.columns import ARROW

_SEPARATORS: Final = b",;\t|"
_LINE_ENDS: Final = b"\n\r"
# Measured: 281 bytes a row of one column, 351 of two, 659 of six. Dates other than ISO 8601 of equal length take 400
# more a row of one instrument while they are read; two tables are read at once, so that the excess is bounded.
_CSV_ROW, _CSV_CELL = 300, 80
# Measured: 269 bytes a row of one column, 453 of two, 732 of six, 2,809 of 25; texts as long as they are.
_ARROW_ROW, _ARROW_CELL = 200, 120


@dataclass(frozen=True, slots=True)
class Size:
    """`memory`: bytes beside the body's, about."""

    rows: int
    cells: int
    memory: int


def of(raw: bytes, kind: str, as_json: int) -> Size:
    """The size of a table; `as_json`: the memory if the text is a JSON document.

    Raises ValueError above the limits of rows and cells, and for a damaged Arrow stream.
    """
    if kind == ARROW:
        rows, cells, size = arrow.check(raw)
        return Size(rows, cells, _ARROW_ROW * rows + _ARROW_CELL * cells + size)
    rows = max(bodies.counts(raw, _LINE_ENDS))
    if rows > MOST_ROWS:
        raise ValueError(f"it has too many rows (max {MOST_ROWS}, got {rows})")
    fields = sum(bodies.counts(raw, _SEPARATORS))
    if fields > MOST_FIELDS:
        raise ValueError(f"it has too many fields (max {MOST_FIELDS}, got {fields})")
    return Size(rows, fields + rows, max(_CSV_ROW * rows + _CSV_CELL * (fields + rows), as_json))
