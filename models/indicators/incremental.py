"""Indicators of one instrument, bar by bar: the newest values without recomputing the whole history.

Owns the state between bars and the method for each function:

- Recursive form (incremental_forms.py): one step per bar. The value equals the full call over all bars ever received.
- Bounded memory: TA-Lib computes the value over the last lookback + 1 bars. The value equals the full call too.
- Unbounded memory without a recursive form (see memory.py): TA-Lib computes the value over all held bars. The value
  equals the full call over the held bars.

The newest bar may be corrected any number of times, because the state before the newest bar is kept as well. With that
state (`checkpoint`) and the held bars another object gives the same values at all further bars.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.indicators.incremental_bars import Bars
from models.indicators.incremental_forms import Form, State, form
from models.indicators.incremental_state import pack, unpack
from models.indicators.memory import bounded
from models.indicators.panel import Panel
from models.indicators.plan import Plans
from models.indicators.program import Program

_POSITIONS = frozenset(("MAXINDEX", "MININDEX", "MINMAXINDEX"))
"""Functions with positions in the panel as values."""
_PLAN_BYTES = 64 << 20


def newest_units(program: Program, held: int) -> int:
    """The cost of the newest values, after each bar, with so many bars held; see price.py."""
    rest = [call for call in program.calls if form(call) is None]
    return int(sum(replace(call, last=1, fresh=bounded(call)).units(held) for call in rest))


def bars_needed(program: Program) -> int:
    """The number of bars to hold so that every call has a value."""
    return max((call.lookback + 1 for call in program.calls), default=1)


class _Recursive(NamedTuple):
    form: Form
    rows: slice


class Incremental:
    """The newest values of a program over a growing history. Not thread-safe."""

    def __init__(self, program: Program, columns: tuple[str, ...], capacity: int, plans: Plans | None = None) -> None:
        """`columns`: the columns of every bar, including all that the program needs. `capacity`: bars to hold.

        `plans`: TA-Lib's buffers, shared by all Incremental objects that compute on one thread.
        """
        self.program = program
        self.bars = Bars(columns, max(capacity, bars_needed(program)))
        self._plans = plans or Plans(_PLAN_BYTES)
        forms = [form(call) for call in program.calls]
        self._recursive = [
            _Recursive(found, rows) for found, rows in zip(forms, program.rows, strict=True) if found is not None
        ]
        rest = [place for place, found in enumerate(forms) if found is None]
        self._tail = _Windowed(program, [place for place in rest if bounded(program.calls[place])], fresh=True)
        self._whole = _Windowed(program, [place for place in rest if not bounded(program.calls[place])], fresh=False)
        self._before: list[State] = self._starts
        self._after = self._before
        # Bars before the first one loaded here, and the bars loaded here that are in the state.
        self._earlier = self._known = 0
        self.values: NDArray[np.float64] = np.full(len(program.outputs), np.nan)

    @property
    def checkpoint(self) -> tuple[int, bytes]:
        """The number of bars before the newest one, and the state after them."""
        return self._earlier + self.bars.count - 1, pack(self.program, self._starts, self._before)

    def resume(self, bars: int, state: bytes, known: int) -> None:
        """Go on from a checkpoint: its `bars` and `state`. The first `known` bars to load are in the state.

        Raises ValueError.
        """
        if not bars and state != pack(self.program, self._starts, self._starts):
            # A step from such a state would read the bar before the first one.
            raise ValueError("is not that before the first bar")
        self._after = unpack(self.program, self._starts, state)
        self._earlier, self._known = bars - known, known

    @property
    def _starts(self) -> list[State]:
        return [one.form.start for one in self._recursive]

    def load(self, history: Panel) -> NDArray[np.float64]:
        """Append many bars, oldest first; the values at the newest bar."""
        self.feed(history, 0, history.bars)
        return self.compute()

    def feed(self, history: Panel, start: int, stop: int) -> None:
        """Append the bars [start, stop) of a history. Call compute() after the last bar, for the values of windows."""
        columns = {name: getattr(history, name)[start:stop].tolist() for name in self.bars.columns}
        for values in zip(*columns.values(), strict=True):
            self.bars.append(dict(zip(columns, values, strict=True)))
            if self.bars.count > self._known:
                self._step()

    def append(self, bar: Mapping[str, float]) -> NDArray[np.float64]:
        """Take the next bar, with every column; returns the newest values [outputs], NaN during warm-up."""
        self.bars.append(bar)
        self._step()
        return self.compute()

    def correct(self, bar: Mapping[str, float]) -> NDArray[np.float64]:
        """Replace the newest bar; returns the newest values [outputs]."""
        self.bars.replace(bar)
        self._after = self._before
        self._step()
        return self.compute()

    def _step(self) -> None:
        self._before = self._after
        self._after = []
        for (one, rows), state in zip(self._recursive, self._before, strict=True):
            after, outputs = one.step(state, self.bars)
            self._after.append(after)
            self.values[rows] = outputs

    def compute(self) -> NDArray[np.float64]:
        """Compute the windowed calls, and return a copy of all values."""
        if self._tail.places:
            self._tail.compute(self.values, self.bars, self._plans, self._tail.lookback + 1, self._earlier)
        if self._whole.places:
            self._whole.compute(self.values, self.bars, self._plans, self.bars.held, self._earlier)
        return self.values.copy()


class _Windowed:
    """Calls of a program, computed by TA-Lib over a window of bars."""

    def __init__(self, program: Program, places: list[int], *, fresh: bool) -> None:
        self.places = places
        calls = [replace(program.calls[place], last=1, fresh=fresh) for place in places]
        self._program = Program(calls)
        self._rows = [row for place in places for row in range(program.rows[place].start, program.rows[place].stop)]
        self._positions = [call.function.name in _POSITIONS for call in calls for _ in call.function.outputs]
        self._lookbacks = np.array([call.lookback for call in calls for _ in call.function.outputs])
        self._integers = np.array([output.integer for call in calls for output in call.function.outputs])
        self.lookback = max((call.lookback for call in calls), default=0)

    def compute(self, values: NDArray[np.float64], bars: Bars, plans: Plans, window: int, earlier: int) -> None:
        """Write the newest values of the calls into `values`. `earlier`: bars before those that `bars` counts."""
        panel = bars.window(window)
        found = plans.of(self._program, panel.bars).run(panel)
        newest = np.array([row[-1] for row in found])
        newest += np.where(self._positions, earlier + bars.count - panel.bars, 0)
        values[self._rows] = np.where(self._lookbacks < bars.count, newest, np.where(self._integers, 0.0, np.nan))
