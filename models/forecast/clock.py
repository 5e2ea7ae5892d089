"""The phases of a series: each value's place in a cycle, such as the hour of the day, and those of the steps ahead.

Owns the way from a period or from instants to phases. Phase 0 is the newest value's, phase k follows k sampling steps
later in the cycle. With a period alone the values follow each other without gaps; with instants gaps shift nothing.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.forecast.series import Series

DAY = 86_400 * 10**9
WEEK = 7 * DAY
# As in market_inference/contract/answer_size.py.
MOST_PHASES = 1440


class Clock(NamedTuple):
    """``period``: the phases of the cycle. ``phases``: int64 [T + steps], of the values, then of the steps ahead.

    ``cycles``: that the values hold: how often a phase that they have was seen, on average.
    """

    period: int
    phases: NDArray[np.int64]
    cycles: float


def clock_of(item: Series, steps: int) -> Clock | None:
    """The phases of an item; None for one without a cycle."""
    if item.times is not None:
        return _by_time(item.times, item.period, steps)
    if not item.period:
        return None
    count = len(item.values)
    return Clock(item.period, np.arange(1 - count, steps + 1) % item.period, count / item.period)


def _by_time(times: NDArray[np.int64], period: int, steps: int) -> Clock | None:
    """The cycle is ``period`` sampling steps; without a period a day, or for steps of a day or more a week.

    The steps ahead take the phases that followed when the newest value's phase was last seen: on the last day of
    trading, closing hours are left out and the exchange's own clock is kept after a change to summer time. Several
    values may share a phase: values of the newest value's own visit to the phase do not count.
    """
    step = float(np.median(np.diff(times)))
    cycle = period * step if period else float(DAY if step < DAY else WEEK)
    count = period or min(MOST_PHASES, round(cycle / step))
    if count < 2:
        return None
    past = np.rint((times - times[-1]) % cycle * (count / cycle)).astype(np.int64) % count
    span = float(times[-1] - times[0] + step) / cycle
    # A market that closes has no values at some phases, and several values may share one visit to a phase.
    visits = np.unique(np.rint((times - times[-1]) * (count / cycle)))
    cycles = span if span < 1 else len(visits) / len(np.unique(past))
    seen = np.flatnonzero((past == 0) & (times[-1] - times > cycle / 2))
    ahead = np.arange(1, steps + 1)
    if len(seen):
        day = past[seen[-1] + 1 :]
        phases = day[(ahead - 1) % len(day)]
    else:
        phases = np.rint(ahead * step % cycle * (count / cycle)).astype(np.int64) % count
    return Clock(count, np.concatenate([past, phases]), cycles)
