"""Rows of a CSV file from its lines, in bounded memory.

Owns the bound on a row: a quoted field may go over many lines, and a row may have any number of such fields. Owns the
form of a number.
"""

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from training.recipes.run import DataRefusedError

MOST_ROW_CHARACTERS: Final = 1 << 20


def records(lines: Iterable[str]) -> Iterator[list[str]]:
    """The fields of each row, the header first. Raises csv.Error, also for a row above MOST_ROW_CHARACTERS."""
    characters = 0

    def counted() -> Iterator[str]:
        nonlocal characters
        for line in lines:
            characters += len(line)
            if characters > MOST_ROW_CHARACTERS:
                raise csv.Error(f"a row of more than {MOST_ROW_CHARACTERS} characters")
            yield line

    for fields in csv.reader(counted(), strict=True):
        yield fields
        characters = 0


def number(text: str) -> float:
    """The number; NaN without one. Python's own `1_0` and digits of other scripts are no numbers of a file."""
    try:
        return float(text) if "_" not in text and text.isascii() else math.nan
    except ValueError:
        return math.nan


def rows(lines: Iterable[str], needed: Sequence[str], wanted: Sequence[str] = ()) -> Iterator[tuple[int, list[str]]]:
    """Number and fields of each row: the columns `needed`, then the columns `wanted`, "" where there are none.

    Raises DataRefusedError for lines that are no CSV, and for a missing column.
    """
    try:
        found = records(lines)
        header = [name.strip().lower() for name in next(found, [])]
        if missing := [name for name in needed if name not in header]:
            raise DataRefusedError(f"row 1: no column {missing[0]!r}")
        places = [header.index(name) if name in header else len(header) for name in (*needed, *wanted)]
        for row, fields in enumerate(found, start=2):
            fields += [""] * (len(header) + 1 - len(fields))
            yield row, [fields[place] if place < len(header) else "" for place in places]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataRefusedError(f"the file cannot be read: {error}") from None
