"""The order of bars in a file: oldest first, newest first, or none."""

from collections.abc import Sequence

import numpy as np

from market_inference.client.files.error import FileError
from market_inference.client.files.instants import Instants


def descending(instants: Instants, rows: Sequence[int]) -> bool:
    """Whether the bars are strictly descending; False if strictly ascending.

    Raises FileError with the rows for a time that occurs twice, and for any other order.
    """
    if len(instants) < 2:
        return False
    steps = np.diff(instants.astype(np.int64))
    if (steps > 0).all():
        return False
    if (steps < 0).all():
        return True
    _refuse_duplicates(instants, rows)
    down = bool((steps < 0).sum() > (steps > 0).sum())
    at = int(np.flatnonzero(steps > 0 if down else steps < 0)[0]) + 1
    relation = "after" if down else "before"
    raise FileError(
        f"row {rows[at]}: {shown(instants[at])} is {relation} {shown(instants[at - 1])} in row {rows[at - 1]}; "
        "the file is not sorted by time: sort the rows"
    )


def _refuse_duplicates(instants: Instants, rows: Sequence[int]) -> None:
    order = np.argsort(instants, kind="stable")
    equal = np.flatnonzero(np.diff(instants[order].astype(np.int64)) == 0)
    if len(equal):
        first, second = sorted((int(order[equal[0]]), int(order[equal[0] + 1])))
        raise FileError(
            f"row {rows[second]}: {shown(instants[second])} is the time of row {rows[first]}, too; two files joined, "
            "several instruments, or local time at the end of daylight saving time?"
        )


def shown(instant: np.datetime64) -> str:
    """A time for messages, without a time of day at midnight."""
    text = str(instant.astype("datetime64[s]")).replace("T", " ")
    return text.removesuffix(" 00:00:00")
