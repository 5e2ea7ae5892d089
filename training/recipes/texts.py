"""Labelled texts of a dataset's file, with their times.

Owns the reading for recipes and for the gate. The plane has checked the file before; a row that is wrong here is
refused by name. The gate reads a file twice: what divides the rows, then the texts of some rows.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.recipes import table
from training.recipes.run import DataRefusedError

FIRST_ROW = 2
"""The number of the first row behind the header."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text and its label. `row` is counted in the file; times are Unix times in seconds, NaN for none."""

    row: int
    text: str
    label: int
    time: float
    label_time: float


@dataclass(frozen=True, slots=True)
class Columns:
    """What divides n rows, 26 bytes of each: labels, times and label times as in Text, and the draw of the text.

    Place p of the arrays is row p + FIRST_ROW of the file.
    """

    labels: npt.NDArray[np.uint16]
    times: npt.NDArray[np.float64]
    label_times: npt.NDArray[np.float64]
    draws: npt.NDArray[np.uint64]


def read(path: Path, labels: int) -> list[Text]:
    """The rows of a CSV file with columns `text` and `label`. Raises DataRefusedError naming a bad row."""
    with path.open(encoding="utf-8-sig", newline="") as lines:
        return list(_rows(lines, labels))


def columns(lines: Iterable[str], labels: int, seed: int) -> Columns:
    """The columns of all rows. Raises DataRefusedError naming a bad row."""
    found, times, decided, draws = array("H"), array("d"), array("d"), array("Q")
    for row in _rows(lines, labels):
        found.append(row.label)
        times.append(row.time)
        decided.append(row.label_time)
        draws.append(draw(row.text, seed))
    return Columns(
        np.frombuffer(found, np.uint16), np.frombuffer(times), np.frombuffer(decided), np.frombuffer(draws, np.uint64)
    )


def picked(lines: Iterable[str], places: Sequence[int]) -> Iterator[str]:
    """The texts at these places of the columns; places increase. The file is read to its end."""
    wanted = iter(places)
    place = next(wanted, None)
    for row, (text,) in table.rows(lines, ["text"]):
        if row - FIRST_ROW == place:
            place = next(wanted, None)
            yield text


def draw(text: str, seed: int) -> int:
    """The text's place in a random order of all texts: a hash of 64 bits, keyed by the seed."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8, salt=seed.to_bytes(8, "big")).digest(), "big")


def _rows(lines: Iterable[str], labels: int) -> Iterator[Text]:
    for row, (text, label, time, label_time) in table.rows(lines, ["text", "label"], ["time", "label_time"]):
        label = label.strip()
        if not text.strip() or not label.isdecimal() or not label.isascii() or int(label) >= labels:
            raise DataRefusedError(f"row {row}: needs a text and a label from 0 to {labels - 1}")
        at, decided = seconds(time, row), seconds(label_time, row)
        yield Text(row, text, int(label), at, at if decided != decided else decided)


def seconds(text: str, row: int) -> float:
    """An ISO 8601 time as a Unix time; NaN for an empty one. Raises DataRefusedError."""
    if not text.strip():
        return float("nan")
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise DataRefusedError(f"row {row}: {text[:40]!r} is no ISO 8601 time") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def classes(rows: Sequence[Text]) -> int:
    """The number of labels: the highest label plus one."""
    return 1 + max((row.label for row in rows), default=0)
