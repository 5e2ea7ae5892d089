"""The bars and indicators of one live session.

Owns the rules between a session's bars (order, look-ahead, corrections) and the indicators at the newest bar. Knows
neither streams nor queues. Used by one thread at a time.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from market_inference.contract.deadline import now
from market_inference.contract.errors import (
    BarOutOfOrderError,
    DuplicateBarError,
    FutureBarError,
    InvalidRequestError,
    Violation,
)
from market_inference.contract.generated import inference_pb2
from market_inference.contract.validation import bars
from models import indicators
from models.indicators.incremental import Incremental, bars_needed
from models.indicators.plan import Plans

CHECKPOINT_BARS = 64
"""Bars from one checkpoint to the next."""
# Bars that are loaded between two looks at the clock: 100 recursive indicators take some 5 ms for so many.
_STEP_BARS = 32


@dataclass(frozen=True, slots=True)
class Opening:
    """What a session is opened with: the checked WatchOpen message and the compiled indicators.

    `bars`: bars to hold, at least. `every`: a forecast at every so many bars, 0 for none.
    """

    request: inference_pb2.WatchOpen
    program: indicators.Program
    bars: int
    every: int

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the history has."""
        return tuple(name for name in indicators.COLUMNS if len(getattr(self.request.history, name)))

    @property
    def held(self) -> int:
        """Bars that the session will hold."""
        return max(self.bars, bars_needed(self.program))

    @property
    def size_bytes(self) -> int:
        """Bytes of the session's bars, as allocated by models.indicators.incremental_bars.Bars, and of the times."""
        return (len(self.columns) + self.by_time) * (self.held + self.held // 4 + 64) * 8

    @property
    def by_time(self) -> bool:
        """Whether forecasts need the times of the bars."""
        return bool(self.every and self.request.forecast.by_time)


@dataclass(frozen=True, slots=True)
class BarUpdate:
    """Indicator values at the newest bar. `closes`: the input of a forecast that is due, oldest first.

    `times`: those of the closes, for a forecast by time. `checkpoint`: with every CHECKPOINT_BARS-th bar.
    """

    values: NDArray[np.float64]
    closes: NDArray[np.float64] | None
    times: NDArray[np.int64] | None = None
    checkpoint: inference_pb2.WatchCheckpoint | None = None


class SessionState:
    """Bars and indicators. load() to the end, then start(), then update(). Raises InvalidRequestError."""

    def __init__(self, opening: Opening, plans: Plans) -> None:
        # None once it is loaded.
        self._history: indicators.Panel | None = panel_of(opening.request.history)
        times = opening.request.times
        _check_times(times, self._history.bars)
        self._every = opening.every
        self._live = Incremental(opening.program, opening.columns, opening.held, plans)
        self.sequence = opening.request.sequence
        if opening.request.HasField("checkpoint"):
            self._resume(opening.request.checkpoint, self._history.bars)
        self._time = times[-1] if len(times) else None
        # The times of the held bars, for forecasts by time.
        self._times = array("q", times[-opening.held :]) if opening.by_time else None

    @property
    def held(self) -> int:
        return self._live.bars.capacity

    def _checkpoint(self) -> inference_pb2.WatchCheckpoint:
        bars, state = self._live.checkpoint
        return inference_pb2.WatchCheckpoint(sequence=self.sequence, bars=bars, state=state)

    def _resume(self, checkpoint: inference_pb2.WatchCheckpoint, size: int) -> None:
        """Go on from a checkpoint, with a history of `size` bars. Raises InvalidRequestError."""
        fresh = self.sequence + 1 - checkpoint.sequence
        if not 1 <= fresh <= size:
            what = f"must be that of a bar in the history ({self.sequence + 1 - size} to {self.sequence})"
            raise InvalidRequestError([Violation("checkpoint.sequence", what, "checkpoint")])
        known = size - fresh
        if known > checkpoint.bars:
            what = f"must count the bars of the history before the checkpoint's ({known}, got {checkpoint.bars})"
            raise InvalidRequestError([Violation("checkpoint.bars", what, "checkpoint")])
        needed = min(checkpoint.bars + fresh, max(self.held, fresh + 1))
        if size < needed:
            what = f"must have the newest {needed} bars of the session (got {size})"
            raise InvalidRequestError([Violation("history", what, "checkpoint")])
        try:
            self._live.resume(checkpoint.bars, checkpoint.state, known)
        except ValueError as error:
            raise InvalidRequestError([Violation("checkpoint.state", str(error), "checkpoint")]) from error

    def load(self, until: float) -> bool:
        """Load the history until an instant of the monotonic clock; whether the whole history is loaded."""
        history = self._history
        while history is not None and self._live.bars.count < history.bars:
            start = self._live.bars.count
            self._live.feed(history, start, min(start + _STEP_BARS, history.bars))
            if now() >= until:
                return False
        self._history = None
        return True

    def start(self) -> inference_pb2.WatchCheckpoint:
        """Compute the indicators once, after the history was loaded; the first checkpoint."""
        self._live.compute()
        return self._checkpoint()

    def update(self, message: inference_pb2.WatchBar) -> BarUpdate:
        """Append a bar, or correct the newest bar.

        Raises InvalidRequestError or a subclass; the session is then unchanged.
        """
        bar = self._checked(message)
        checkpoint = None
        if message.sequence == self.sequence:
            values = self._live.correct(bar)
        else:
            values = self._live.append(bar)
            self.sequence, self._time = message.sequence, message.bar.time
            if self._times is not None:
                self._add_time(self._times, message.bar.time)
            if self.sequence % CHECKPOINT_BARS == 0:
                checkpoint = self._checkpoint()
        if not (self._every and self.sequence % self._every == 0):
            return BarUpdate(values, None, checkpoint=checkpoint)
        closes = self._live.bars.column("close", self._live.bars.held).copy()
        times = None if self._times is None else np.array(self._times[-len(closes) :], dtype=np.int64)
        return BarUpdate(values, closes, times, checkpoint)

    def _add_time(self, times: "array[int]", time: int) -> None:
        if len(times) >= self.held + self.held // 4:
            del times[: len(times) - self.held + 1]
        times.append(time)

    def _checked(self, message: inference_pb2.WatchBar) -> dict[str, float]:
        if not message.bar.time:
            raise InvalidRequestError(
                [Violation("bar.time", "must be set, in nanoseconds since the epoch", "required")]
            )
        self._check_place(message.sequence, message.bar.time)
        if message.as_of and message.bar.time > message.as_of:
            what = f"is after as_of ({_said(message.bar.time)} > {_said(message.as_of)})"
            raise FutureBarError([Violation("bar.time", what, "look_ahead")])
        bar = {name: getattr(message.bar, name) for name in self._live.bars.columns}
        for name, value in bar.items():
            if not abs(value) < np.inf or (name == "volume" and value < 0):
                raise InvalidRequestError(
                    [
                        Violation(
                            f"bar.{name}", f"must be a finite price, or a volume of at least 0 (got {value})", "finite"
                        )
                    ]
                )
        if (disorder := bars.disorder_of(bar)) is not None:
            raise InvalidRequestError([Violation(f"bar.{disorder.lower}", disorder.description, bars.REASON)])
        return bar

    def _check_place(self, sequence: int, time: int) -> None:
        if sequence < self.sequence:
            what = f"must not be before the newest bar's ({self.sequence}, got {sequence})"
            raise DuplicateBarError([Violation("sequence", what, "sequence")])
        if sequence > self.sequence + 1:
            what = f"must be {self.sequence + 1}, or {self.sequence} to correct the newest bar (got {sequence})"
            raise BarOutOfOrderError([Violation("sequence", what, "sequence")])
        if self._time is None or (sequence == self.sequence and time == self._time):
            return
        if sequence == self.sequence:
            what = f"must be the newest bar's, which this corrects ({_said(self._time)}, got {_said(time)})"
            raise BarOutOfOrderError([Violation("bar.time", what, "time")])
        if time == self._time:
            raise DuplicateBarError([Violation("bar.time", f"is the newest bar's ({_said(time)})", "time")])
        if time < self._time:
            what = f"is before the newest bar's ({_said(self._time)}, got {_said(time)})"
            raise BarOutOfOrderError([Violation("bar.time", what, "time")])


def _said(nanoseconds: int) -> str:
    """A time in ISO 8601, to the second or the first digits that differ from zero; UTC."""
    instant = np.datetime64(nanoseconds, "ns")
    whole = nanoseconds % 10**9 == 0
    return f"{np.datetime_as_string(instant, unit='s') if whole else str(instant).rstrip('0')}Z"


def panel_of(panel: inference_pb2.Panel) -> indicators.Panel:
    """A message's columns as arrays. Empty columns are absent."""
    columns = [getattr(panel, name) for name in indicators.COLUMNS]
    return indicators.Panel(*[np.asarray(column) if len(column) else None for column in columns])


def _check_times(times: Sequence[int], count: int) -> None:
    if not times:
        return
    if len(times) != count:
        what = f"must have as many values as history.close ({count}, got {len(times)})"
        raise InvalidRequestError([Violation("times", what, "equal_length")])
    for at in range(1, count):
        if times[at] <= times[at - 1]:
            raise InvalidRequestError([Violation(f"times[{at}]", "must be after the one before it", "ascending")])
