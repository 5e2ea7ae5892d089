"""Labelled texts of a dataset's file, with their times.

Owns the reading for recipes. The plane has checked the file before; a row that is wrong here is refused by name.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from training.recipes.run import DataRefusedError


@dataclass(frozen=True, slots=True)
class Text:
    """A text and its label. `row` is counted in the file; times are Unix times in seconds, NaN for none."""

    row: int
    text: str
    label: int
    time: float
    label_time: float


def read(path: Path, labels: int) -> list[Text]:
    """The rows of a CSV file with columns `text` and `label`. Raises DataRefusedError naming a bad row."""
    found = []
    with path.open(encoding="utf-8-sig", newline="") as lines:
        for row, fields in enumerate(csv.DictReader(lines), start=2):
            given = {(name or "").strip().lower(): value or "" for name, value in fields.items()}
            label = given.get("label", "").strip()
            if not given.get("text", "").strip() or not label.isdigit() or int(label) >= labels:
                raise DataRefusedError(f"row {row}: needs a text and a label from 0 to {labels - 1}")
            time = seconds(given.get("time", ""), row)
            decided = seconds(given.get("label_time", ""), row)
            found.append(Text(row, given["text"], int(label), time, time if decided != decided else decided))
    return found


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
