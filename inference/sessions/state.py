"""One live session: its bars, its indicators, and what it makes of the next bar.

Owns the rules between a session's bars (order, look-ahead, corrections) and the values at the newest one. Knows neither
streams nor queues; used on one thread at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
from models.indicators.incremental import Incremental, bars_needed, columns_of
from models.indicators.plan import Plans


@dataclass(frozen=True, slots=True)
class Opening:
    """What a session is opened with. `bars`: how many to hold at least; `every`: a forecast's rhythm, 0 for none."""

    history: indicators.Panel
    times: Sequence[int]
    program: indicators.Program
    bars: int
    every: int
    sequence: int

    @property
    def columns(self) -> tuple[str, ...]:
        return columns_of(self.history)

    @property
    def held(self) -> int:
        """Bars that the session will hold."""
        return max(self.bars, bars_needed(self.program))


@dataclass(frozen=True, slots=True)
class BarUpdate:
    """The session at its newest bar. `closes`: those to forecast from when a forecast is due, oldest first."""

    values: NDArray[np.float64]
    closes: NDArray[np.float64] | None


class SessionState:
    """Made, and given its bars, on the sessions' thread."""

    def __init__(self, opening: Opening, plans: Plans) -> None:
        self._every = opening.every
        self._live = Incremental(opening.program, opening.columns, opening.held, plans)
        self._live.load(opening.history)
        self.sequence = opening.sequence
        self._time = opening.times[-1] if len(opening.times) else None

    @property
    def nbytes(self) -> int:
        return self._live.nbytes

    @property
    def held(self) -> int:
        return self._live.bars.capacity

    def take(self, message: inference_pb2.WatchBar) -> BarUpdate:
        """The session with one more bar, or with its newest one corrected.

        Raises InvalidRequestError, by kind; the session is then as it was.
        """
        bar = self._checked(message)
        if message.sequence == self.sequence:
            values = self._live.correct(bar)
        else:
            values = self._live.append(bar)
            self.sequence, self._time = message.sequence, message.bar.time
        due = self._every and self.sequence % self._every == 0
        return BarUpdate(values, self._live.bars.column("close", self._live.bars.held).copy() if due else None)

    def _checked(self, message: inference_pb2.WatchBar) -> dict[str, float]:
        self._check_place(message.sequence, message.bar.time)
        if message.as_of and message.bar.time > message.as_of:
            raise FutureBarError(
                [Violation("bar.time", f"is after as_of ({message.bar.time} > {message.as_of})", "look_ahead")]
            )
        bar = {name: getattr(message.bar, name) for name in self._live.bars.columns}
        for name, value in bar.items():
            if not abs(value) < np.inf or (name == "volume" and value < 0):
                raise InvalidRequestError([Violation(f"bar.{name}", f"is no price or volume (got {value})", "finite")])
        if (disorder := bars.disorder_of(bar)) is not None:
            raise InvalidRequestError([Violation(f"bar.{disorder.lower}", disorder.description, bars.REASON)])
        return bar

    def _check_place(self, sequence: int, time: int) -> None:
        if sequence < self.sequence:
            what = f"is before the newest bar's ({self.sequence}, got {sequence})"
            raise DuplicateBarError([Violation("sequence", what, "sequence")])
        if sequence > self.sequence + 1:
            what = f"must be {self.sequence + 1}, or {self.sequence} to correct the newest bar (got {sequence})"
            raise BarOutOfOrderError([Violation("sequence", what, "sequence")])
        if self._time is None or (sequence == self.sequence and time == self._time):
            return
        if sequence == self.sequence:
            what = f"must be the newest bar's, which this corrects ({self._time}, got {time})"
            raise BarOutOfOrderError([Violation("bar.time", what, "time")])
        if time == self._time:
            raise DuplicateBarError([Violation("bar.time", f"is the newest bar's ({time})", "time")])
        if time < self._time:
            what = f"is before the newest bar's ({self._time}, got {time})"
            raise BarOutOfOrderError([Violation("bar.time", what, "time")])
