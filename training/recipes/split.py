"""Division of rows into training and validation.

Owns the rule against look-ahead (López de Prado, "Advances in Financial Machine Learning", 2018, chapter 7): where rows
have times, the newest rows validate; an older row is left out when its label was decided at or after the first
validation row's time, or when the row lies within the embargo before that time.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from training.recipes.recipe import Split
from training.recipes.run import DataRefusedError
from training.recipes.texts import Text

_DAY = 86_400.0
FEWEST = 5


@dataclass(frozen=True, slots=True)
class Divided:
    """`purged` counts the rows that were left out."""

    train: list[Text]
    validate: list[Text]
    purged: int


def divide(rows: Sequence[Text], split: Split, seed: int) -> Divided:
    """By time where every row has one, else by a draw. Raises DataRefusedError when a part has too few rows."""
    timed = [row for row in rows if not math.isnan(row.time)]
    if timed and len(timed) < len(rows):
        missing = next(row.row for row in rows if math.isnan(row.time))
        raise DataRefusedError(f"row {missing}: has no time, and other rows have one")
    divided = _by_time(timed, split) if timed else _by_draw(rows, split, seed)
    for name, part in (("train on", divided.train), ("validate on", divided.validate)):
        if len(part) < FEWEST:
            raise DataRefusedError(f"{len(part)} rows to {name}, at least {FEWEST} are needed")
    return divided


def _by_time(rows: Sequence[Text], split: Split) -> Divided:
    ordered = sorted(rows, key=lambda row: (row.time, row.row))
    cut = ordered[len(ordered) - max(1, round(split.validation * len(ordered)))].time
    validate = [row for row in ordered if row.time >= cut]
    before = [row for row in ordered if row.time < cut]
    train = [row for row in before if row.label_time < cut and row.time < cut - split.embargo_days * _DAY]
    return Divided(train, validate, len(before) - len(train))


def _by_draw(rows: Sequence[Text], split: Split, seed: int) -> Divided:
    """The same text never stands on both sides."""
    texts = sorted({row.text for row in rows})
    random.Random(seed).shuffle(texts)  # noqa: S311 -- a division needs no secrecy
    chosen = set(texts[: max(1, round(split.validation * len(texts)))])
    return Divided(
        [row for row in rows if row.text not in chosen], [row for row in rows if row.text in chosen], purged=0
    )
