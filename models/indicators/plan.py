"""A program bound to buffers, ready to run TA-Lib over one panel after another.

Owns the calls into the C library and the buffers. The arguments of a call are built once for all programs, and the
addresses of its outputs once per program. Per panel, the columns are copied in, the functions run, and the answer is
copied out of one block. A call with `last_only` computes its last values only. TA-Lib's Python package is slower,
because every call allocates new outputs. The C library's global settings (unstable periods, compatibility, candle
settings) keep the defaults.
"""

import ctypes
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from threading import local
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.indicators import library, running_sums
from models.indicators.answer import Answer, cut
from models.indicators.panel import COLUMNS, Panel
from models.indicators.program import Call, Program

_SUCCESS = 0
_ALLOCATION_FAILED = 3
# TA_MINMAX takes two bars or more, and a bar spoils the sums of later windows only.
_SHORTEST_RANGE = 2
_SMALLEST_CAPACITY = 256
_CALL_BYTES = 512
_BOUND_CALLS = 512
_FIRST_BAR = ctypes.c_int(0)
_LOCK_RELEASED_ABOVE = 1024
"""Bars above which a call releases the interpreter lock, so that the event loop can run. Below, a call takes a few
microseconds, and releasing the lock would cost more: another thread may keep the lock for a switch interval (5 ms)."""


class Workspace:
    """The columns of one panel of up to `capacity` bars, and the calls bound to them. For one thread.

    Plans share a workspace: a new list of indicators mostly has known calls.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.columns: dict[str, NDArray[np.float64]] = dict(
            zip(COLUMNS, np.empty((len(COLUMNS), capacity)), strict=True)
        )
        self.end = ctypes.c_int()
        self._ignored = [ctypes.byref(ctypes.c_int()) for _ in range(2)]
        self.bind = lru_cache(maxsize=_BOUND_CALLS)(self._bind)

    def _bind(self, call: Call) -> "_Bound":
        inputs = [_address(self.columns[column]) for column in call.function.columns]
        parameters = [
            library.argument(value, parameter.integer)
            for value, parameter in zip(call.values, call.function.parameters, strict=True)
        ]
        name = f"TA_{call.function.name}"
        return _Bound(
            (getattr(library.HOLDING, name), getattr(library.RELEASING, name)),
            (self.end, *inputs, *parameters, *self._ignored),
            min(call.lookback, self.capacity),
            call.last_only,
            running_sums.ratio_of(call) if running_sums.is_summing(call) else None,
        )


class _Bound(NamedTuple):
    """A call over the columns of a workspace.

    `functions`: the C function that holds the interpreter lock, and the one that releases it. `arguments`: last bar,
    inputs, parameters, two results that are ignored; the first bar stands before them, and the outputs behind. `ratio`:
    see running_sums.py, None for a call without running sums.
    """

    functions: tuple[Any, Any]
    arguments: tuple[object, ...]
    lookback: int
    last_only: bool
    ratio: float | None


class _Row(NamedTuple):
    """Where the values of an output are written."""

    address: int
    itemsize: int

    def at(self, bar: int) -> int:
        """The address of the value of a bar."""
        return self.address + bar * self.itemsize


class Plan:
    """The output buffers of one program, for panels of up to `capacity` bars. Not thread-safe."""

    def __init__(self, program: Program, capacity: int, workspace: Workspace | None = None) -> None:
        integers = [output.integer for call in program.calls for output in call.function.outputs]
        self.capacity = capacity
        self._program = program
        space = workspace or Workspace(capacity)
        self._end = space.end
        self._inputs = [(name, space.columns[name]) for name in sorted(program.needs)]
        # TA-Lib never writes the warm-up bars, so one fill is enough: NaN for real outputs, 0 for integer outputs.
        self._outputs = np.full((len(integers), capacity), np.nan)
        self._integers = {row: np.zeros(capacity, dtype=np.int32) for row, integer in enumerate(integers) if integer}
        first, size = self._outputs.ctypes.data, self._outputs.itemsize
        self._rows = [_Row(first + row * capacity * size, size) for row in range(len(integers))]
        for row, values in self._integers.items():
            self._rows[row] = _Row(values.ctypes.data, values.itemsize)
        self._late: list[_LateStart] = []
        self._bound = [space.bind(call) for call in program.calls]
        self._calls = [
            (bound.functions, self._arguments(call, bound, self._rows[rows]))
            for call, bound, rows in zip(program.calls, self._bound, program.rows, strict=True)
        ]
        # The columns of calls with running sums: each with the arguments for its minimum and maximum.
        ratios: dict[str, float] = {}
        for call, bound in zip(program.calls, self._bound, strict=True):
            if bound.ratio is not None:
                for column in call.function.columns:
                    ratios[column] = min(bound.ratio, ratios.get(column, running_sums.RATIO))
        self._ranges = [_Range(space.columns[column], ratio) for column, ratio in sorted(ratios.items())]

    @property
    def nbytes(self) -> int:
        """Bytes of the output buffers, and about those of the arguments."""
        buffers = [self._outputs, *self._integers.values()]
        return sum(buffer.nbytes for buffer in buffers) + _CALL_BYTES * len(self._calls)

    def run(self, panel: Panel) -> Answer:
        """Compute every call over a panel with the program's columns and at most `capacity` bars.

        Raises running_sums.SpoiltSumsError for bars over which running sums cannot be computed.
        """
        bars = panel.bars
        self._end.value = bars - 1
        for column, buffer in self._inputs:
            buffer[:bars] = getattr(panel, column)
        for late in self._late:
            late.start_at(bars)
        releasing = bars > _LOCK_RELEASED_ABOVE
        for functions, arguments in self._calls:
            function = functions[releasing]
            code = function(*arguments)
            if code != _SUCCESS:
                raise _failure(function.__name__, code)
        if self._ranges and not all(found.within_ratio(bars) for found in self._ranges):
            self._start_afresh(bars)
        for row, values in self._integers.items():
            self._outputs[row, :bars] = values[:bars]
        return cut(self._program, self._outputs, bars)

    def _start_afresh(self, bars: int) -> None:
        """Compute calls with running sums again, from each bar after which earlier bars would spoil the sums."""
        inputs = dict(self._inputs)
        for call, rows, bound in zip(self._program.calls, self._program.rows, self._bound, strict=True):
            if bound.ratio is None:
                continue
            columns = [inputs[column][:bars] for column in call.function.columns]
            starts = running_sums.fresh_starts(columns, running_sums.lookbacks(call), bound.ratio)
            function, fixed = bound.functions[True], bound.arguments[1:]
            for start, end in pairwise([*starts, bars]):
                addresses = [ctypes.c_void_p(row.at(start)) for row in self._rows[rows]]
                code = function(ctypes.c_int(start), ctypes.c_int(end - 1), *fixed, *addresses)
                if code != _SUCCESS:
                    raise _failure(function.__name__, code)

    def _arguments(self, call: Call, bound: _Bound, rows: Sequence[_Row]) -> tuple[object, ...]:
        """The C function's arguments: the first bar, those of `bound`, and the outputs."""
        outputs = [ctypes.c_void_p(row.at(bound.lookback)) for row in rows]
        start = _FIRST_BAR
        if bound.last_only:
            start = ctypes.c_int()
            self._late.append(_LateStart(call, start, list(zip(outputs, rows, strict=True))))
        return (start, *bound.arguments, *outputs)


class _Range:
    """The minimum and maximum of a column, by TA-Lib: numpy would take as long as a simple function."""

    def __init__(self, column: NDArray[np.float64], ratio: float) -> None:
        self._ratio = ratio
        self._low, self._high = ctypes.c_double(), ctypes.c_double()
        self._end, self._period = ctypes.c_int(), ctypes.c_int()
        self._ignored = (ctypes.c_int(), ctypes.c_int())
        results = [ctypes.byref(result) for result in (*self._ignored, self._low, self._high)]
        self._arguments = (self._end, self._end, _address(column), self._period, *results)

    def within_ratio(self, bars: int) -> bool:
        """Whether the first `bars` of the column spoil no sum."""
        if bars < _SHORTEST_RANGE:
            return True
        self._end.value, self._period.value = bars - 1, bars
        library.HOLDING.TA_MINMAX(*self._arguments)
        return running_sums.within_ratio(self._low.value, self._high.value, self._ratio)


class _LateStart:
    """The arguments of a call that computes its last values only: the first bar, and the addresses of its values."""

    def __init__(self, call: Call, start: ctypes.c_int, outputs: list[tuple[ctypes.c_void_p, _Row]]) -> None:
        self._lookback, self._last = call.lookback, call.last or 1
        self._start = start
        self._outputs = outputs

    def start_at(self, bars: int) -> None:
        """Set the arguments for a panel. TA-Lib writes nothing if the panel is shorter than the warm-up."""
        first = min(max(self._lookback, bars - self._last), bars - 1)
        self._start.value = first
        for pointer, row in self._outputs:
            pointer.value = row.at(first)


class Plans(local):
    """A cache of plans by program, for each thread that uses it, since a plan is for one thread.

    Above `limit` bytes of buffers of a thread, its least recently used plans are dropped. Beside these bytes a thread
    keeps a workspace for each power of two of bars, from 256 bars on: 7 for the contract's 10,000 bars, which take
    5 MB at most: 1.3 MB of columns, and _BOUND_CALLS calls each.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._plans: OrderedDict[Program, Plan] = OrderedDict()
        self._spaces: dict[int, Workspace] = {}

    def of(self, program: Program, bars: int) -> Plan:
        """The plan of a program, with a capacity of at least `bars`."""
        plan = self._plans.get(program)
        if plan is None or plan.capacity < bars:
            plan = self._make(program, bars)
        else:
            self._plans.move_to_end(program)
        return plan

    def _make(self, program: Program, bars: int) -> Plan:
        smaller = self._plans.pop(program, None)
        capacity = max(_SMALLEST_CAPACITY, 1 << (bars - 1).bit_length())
        space = self._spaces.get(capacity) or self._spaces.setdefault(capacity, Workspace(capacity))
        plan = Plan(program, capacity, space)
        self._plans[program] = plan
        self._held += plan.nbytes - (smaller.nbytes if smaller else 0)
        while self._held > self._limit and len(self._plans) > 1:
            _, dropped = self._plans.popitem(last=False)
            self._held -= dropped.nbytes
        return plan


def _address(array: NDArray[np.float64] | NDArray[np.int32]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _failure(function: str, code: int) -> Exception:
    if code == _ALLOCATION_FAILED:
        return MemoryError(f"{function} could not allocate its working memory")
    return RuntimeError(f"{function} failed with TA-Lib's return code {code} on checked parameters")
