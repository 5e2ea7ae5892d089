"""Division of rows into training, validation and the part that is held back for the gate.

Owns the rule against look-ahead (López de Prado, "Advances in Financial Machine Learning", 2018, chapter 7): where rows
have times, the newest rows are held back, and the newest of the rest validate. An older row is left out when its label
was decided at or after the first time of a later part, or when the row lies within the embargo before that time. The
plane divides the dataset by the same function, so that no machine chooses the rows that judge it.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from training.recipes.recipe import Split
from training.recipes.run import DataRefusedError
from training.recipes.texts import Text

_DAY = 86_400.0
FEWEST = 5


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


def divide(rows: Sequence[Text], split: Split, seed: int) -> Divided:
    """By time where every row has one, else by a draw. Raises DataRefusedError when a part has too few rows."""
    timed = [row for row in rows if not math.isnan(row.time)]
    if timed and len(timed) < len(rows):
        missing = next(row.row for row in rows if math.isnan(row.time))
        raise DataRefusedError(f"row {missing}: has no time, and other rows have one")
    divided = _by_time(timed, split) if timed else _by_draw(rows, split, seed)
    parts = [("train on", divided.train), ("validate on", divided.validate)]
    for name, part in parts if not split.gate else [*parts, ("hold back for the gate", divided.gate)]:
        if len(part) < FEWEST:
            raise DataRefusedError(f"{len(part)} rows to {name}, at least {FEWEST} are needed")
    return divided


def _by_time(rows: Sequence[Text], split: Split) -> Divided:
    ordered = sorted(rows, key=lambda row: (row.time, row.row))
    before, gate = _newest(ordered, split.gate, split.embargo_days) if split.gate else (ordered, [])
    train, validate = _newest(before, split.validation, split.embargo_days) if before else ([], [])
    return Divided(train, validate, len(rows) - len(train) - len(validate) - len(gate), gate)


def _newest(ordered: Sequence[Text], share: float, embargo_days: float) -> tuple[list[Text], list[Text]]:
    """The older rows that know nothing of the newest share, and the newest share."""
    cut = ordered[len(ordered) - max(1, round(share * len(ordered)))].time
    newest = [row for row in ordered if row.time >= cut]
    older = [row for row in ordered if row.time < cut - embargo_days * _DAY and row.label_time < cut]
    return older, newest


def _by_draw(rows: Sequence[Text], split: Split, seed: int) -> Divided:
    """The same text never stands on two sides."""
    texts = sorted({row.text for row in rows})
    random.Random(seed).shuffle(texts)  # noqa: S311 -- a division needs no secrecy
    held = max(1, round(split.gate * len(texts))) if split.gate else 0
    gate, rest = set(texts[:held]), texts[held:]
    chosen = set(rest[: max(1, round(split.validation * len(rest)))])
    return Divided(
        [row for row in rows if row.text not in chosen and row.text not in gate],
        [row for row in rows if row.text in chosen],
        purged=0,
        gate=[row for row in rows if row.text in gate],
    )
