"""A program bound to buffers, ready to run TA-Lib over one panel after another.

Owns the calls into the C library and the buffers. The arguments of a call are built once per program. Per panel, the
columns are copied in, the functions run, and the answer is copied out of one block. A call with `last_only` computes
its last values only. TA-Lib's Python package is slower, because every call allocates new outputs. The C library's
global settings (unstable periods, compatibility, candle settings) keep the defaults.
"""

import ctypes
from collections import OrderedDict
from itertools import pairwise
from threading import local

import numpy as np
from numpy.typing import NDArray

from models.indicators import library, running_sums
from models.indicators.answer import Answer, cut
from models.indicators.panel import Panel
from models.indicators.program import Call, Program

_SUCCESS = 0
_ALLOCATION_FAILED = 3
# TA_MINMAX takes two bars or more, and a bar spoils the sums of later windows only.
_SHORTEST_RANGE = 2
_SMALLEST_CAPACITY = 256
_CALL_BYTES = 2048
_LOCK_RELEASED_ABOVE = 1024
"""Bars above which a call releases the interpreter lock, so that the event loop can run. Below, a call takes a few
microseconds, and releasing the lock would cost more: another thread may keep the lock for a switch interval (5 ms)."""


class Plan:
    """The buffers of one program, for panels of up to `capacity` bars. Not thread-safe."""

    def __init__(self, program: Program, capacity: int) -> None:
        integers = [output.integer for call in program.calls for output in call.function.outputs]
        self.capacity = capacity
        self._program = program
        columns = sorted(program.needs)
        self._inputs = dict(zip(columns, np.empty((len(columns), capacity)), strict=True))
        # TA-Lib never writes the warm-up bars, so one fill is enough: NaN for real outputs, 0 for integer outputs.
        self._outputs = np.full((len(integers), capacity), np.nan)
        self._integers = {row: np.zeros(capacity, dtype=np.int32) for row, integer in enumerate(integers) if integer}
        self._end = ctypes.c_int()
        self._ignored = (ctypes.c_int(), ctypes.c_int())
        self._late: list[_LateStart] = []
        arguments = [self._arguments(call, rows) for call, rows in zip(program.calls, program.rows, strict=True)]
        names = [f"TA_{call.function.name}" for call in program.calls]
        # The calls with running sums, and their columns: each with the arguments for its minimum and maximum.
        self._summing = [place for place, call in enumerate(program.calls) if running_sums.is_summing(call)]
        ratios: dict[str, float] = {}
        for call in (program.calls[place] for place in self._summing):
            for column in call.function.columns:
                ratios[column] = min(running_sums.ratio_of(call), ratios.get(column, running_sums.RATIO))
        self._ranges = [_Range(self._inputs[column], ratio) for column, ratio in sorted(ratios.items())]
        self._holding = [(getattr(library.HOLDING, n), a) for n, a in zip(names, arguments, strict=True)]
        self._releasing = [(getattr(library.RELEASING, n), a) for n, a in zip(names, arguments, strict=True)]

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers, and about those of the arguments."""
        buffers = [*self._inputs.values(), self._outputs, *self._integers.values()]
        return sum(buffer.nbytes for buffer in buffers) + _CALL_BYTES * len(self._holding)

    def run(self, panel: Panel) -> Answer:
        """Compute every call over a panel with the program's columns and at most `capacity` bars.

        Raises running_sums.SpoiltSumsError for bars over which running sums cannot be computed.
        """
        bars = panel.bars
        self._end.value = bars - 1
        for column, buffer in self._inputs.items():
            buffer[:bars] = getattr(panel, column)
        for late in self._late:
            late.start_at(bars)
        for function, arguments in self._releasing if bars > _LOCK_RELEASED_ABOVE else self._holding:
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
        for place in self._summing:
            call, rows = self._program.calls[place], self._program.rows[place]
            columns = [self._inputs[column][:bars] for column in call.function.columns]
            starts = running_sums.fresh_starts(columns, running_sums.lookbacks(call), running_sums.ratio_of(call))
            function, arguments = self._releasing[place]
            outputs = [self._integers.get(row, self._outputs[row]) for row in range(rows.start, rows.stop)]
            for start, end in pairwise([*starts, bars]):
                addresses = [_address(output[start:]) for output in outputs]
                fixed = arguments[2 : len(arguments) - len(outputs)]
                code = function(ctypes.c_int(start), ctypes.c_int(end - 1), *fixed, *addresses)
                if code != _SUCCESS:
                    raise _failure(function.__name__, code)

    def _arguments(self, call: Call, rows: slice) -> tuple[object, ...]:
        """The C function's arguments: first and last bar, inputs, parameters, two results that are ignored, outputs."""
        inputs = [_address(self._inputs[column]) for column in call.function.columns]
        parameters = [
            library.argument(value, parameter.integer)
            for value, parameter in zip(call.values, call.function.parameters, strict=True)
        ]
        first = min(call.lookback, self.capacity)
        outputs = [
            _address(self._integers.get(row, self._outputs[row])[first:]) for row in range(rows.start, rows.stop)
        ]
        ignored = [ctypes.byref(result) for result in self._ignored]
        start = ctypes.c_int(0)
        if call.last_only:
            buffers = [self._integers.get(row, self._outputs[row]) for row in range(rows.start, rows.stop)]
            self._late.append(_LateStart(call, start, list(zip(outputs, buffers, strict=True))))
        return (start, self._end, *inputs, *parameters, *ignored, *outputs)


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

    def __init__(
        self,
        call: Call,
        start: ctypes.c_int,
        outputs: list[tuple[ctypes.c_void_p, NDArray[np.float64] | NDArray[np.int32]]],
    ) -> None:
        self._lookback, self._last = call.lookback, call.last or 1
        self._start = start
        self._outputs = [(pointer, buffer.ctypes.data, buffer.itemsize) for pointer, buffer in outputs]

    def start_at(self, bars: int) -> None:
        """Set the arguments for a panel. TA-Lib writes nothing if the panel is shorter than the warm-up."""
        first = min(max(self._lookback, bars - self._last), bars - 1)
        self._start.value = first
        for pointer, address, size in self._outputs:
            pointer.value = address + first * size


class Plans(local):
    """A cache of plans by program, for each thread that uses it, since a plan is for one thread.

    Above `limit` bytes of buffers of a thread, its least recently used plans are dropped.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._plans: OrderedDict[Program, Plan] = OrderedDict()

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
        plan = Plan(program, max(_SMALLEST_CAPACITY, 1 << (bars - 1).bit_length()))
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
