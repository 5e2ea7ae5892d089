"""Division of rows into training, validation and the part that is held back for the gate.

Owns the rule against look-ahead (López de Prado, "Advances in Financial Machine Learning", 2018, chapter 7): where rows
have times, the newest rows are held back, and the newest of the rest validate. An older row is left out when its label
was decided at or after the first time of a later part, or when the row lies within the embargo before that time. The
plane divides the dataset by the same function, so that no machine chooses the rows that judge it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from training.recipes.recipe import Split
from training.recipes.run import DataRefusedError
from training.recipes.texts import Columns, Text, draw

_DAY = 86_400.0
FEWEST = 5
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Divided:
    """`purged` counts the rows that were left out; `gate` is empty where the recipe holds nothing back."""

    train: list[Text]
    validate: list[Text]
    purged: int
    gate: list[Text] = field(default_factory=list)

    @property
    def judged(self) -> list[Text]:
        """The rows whose answers the run writes down."""
        return self.gate or self.validate

    @property
    def counts(self) -> dict[str, float]:
        """The rows of each part, among the measures of a run."""
        parts = {"train": self.train, "validation": self.validate, "gate": self.gate}
        return {f"{name}_rows": float(len(rows)) for name, rows in parts.items()}


@dataclass(frozen=True, slots=True)
class Parts:
    """The places of the rows of each part, in the order of time, else of the file."""

    train: Places
    validate: Places
    gate: Places


def divide(rows: Sequence[Text], split: Split, seed: int) -> Divided:
    """By time where every row has one, else by a draw. Raises DataRefusedError when a part has too few rows."""
    columns = Columns(
        np.array([row.label for row in rows], np.uint16),
        np.array([row.time for row in rows], np.float64),
        np.array([row.label_time for row in rows], np.float64),
        np.array([draw(row.text, seed) for row in rows], np.uint64),
    )
    found = parts(columns, split, [row.row for row in rows])
    train, validate, gate = ([rows[place] for place in part] for part in (found.train, found.validate, found.gate))
    return Divided(train, validate, len(rows) - len(train) - len(validate) - len(gate), gate)


def parts(columns: Columns, split: Split, numbers: Sequence[int]) -> Parts:
    """As divide(), by the columns; `numbers` are the rows' numbers in the file."""
    missing = np.isnan(columns.times)
    if missing.any() and not missing.all():
        raise DataRefusedError(f"row {numbers[int(missing.argmax())]}: has no time, and other rows have one")
    found = _by_draw(columns.draws, split) if missing.all() else _by_time(columns, split)
    sizes = [("train on", len(found.train)), ("validate on", len(found.validate))]
    for name, size in sizes if not split.gate else [*sizes, ("hold back for the gate", len(found.gate))]:
        if size < FEWEST:
            raise DataRefusedError(f"{size} rows to {name}, at least {FEWEST} are needed")
    return found


def _by_time(columns: Columns, split: Split) -> Parts:
    ordered = np.argsort(columns.times, kind="stable")
    before, gate = _newest(columns, ordered, split.gate, split.embargo_days) if split.gate else (ordered, ordered[:0])
    train, validate = (
        _newest(columns, before, split.validation, split.embargo_days) if len(before) else (before, before)
    )
    return Parts(train, validate, gate)


def _newest(columns: Columns, ordered: Places, share: float, embargo_days: float) -> tuple[Places, Places]:
    """The older rows that know nothing of the newest share, and the newest share."""
    times = columns.times[ordered]
    cut = times[len(ordered) - max(1, round(share * len(ordered)))]
    older = (times < cut - embargo_days * _DAY) & (columns.label_times[ordered] < cut)
    return ordered[older], ordered[times >= cut]


def _by_draw(draws: npt.NDArray[np.uint64], split: Split) -> Parts:
    """The same text never stands on two sides."""
    texts = np.unique(draws)
    held = max(1, round(split.gate * len(texts))) if split.gate else 0
    chosen = max(1, round(split.validation * (len(texts) - held)))
    part = np.searchsorted(np.array([held, held + chosen]), np.searchsorted(texts, draws), "right")
    gate, validate, train = (np.flatnonzero(part == number) for number in range(3))
    return Parts(train, validate, gate)
