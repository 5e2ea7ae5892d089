"""A program bound to buffers, ready to run TA-Lib over one panel after another.

Owns the calls into the C library and the buffers. The arguments of a call are built once per program. Per panel, the
columns are copied in, the functions run, and the answer is copied out of one block. TA-Lib's Python package is slower,
because every call allocates new outputs. The C library's global settings (unstable periods, compatibility, candle
settings) keep the defaults.
"""

import ctypes
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from models.indicators import library
from models.indicators.answer import Answer, cut
from models.indicators.panel import Panel
from models.indicators.program import Call, Program

_SUCCESS = 0
_ALLOCATION_FAILED = 3
_SMALLEST_CAPACITY = 256
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
        arguments = [self._arguments(call, rows) for call, rows in zip(program.calls, program.rows, strict=True)]
        names = [f"TA_{call.function.name}" for call in program.calls]
        self._holding = [(getattr(library.HOLDING, n), a) for n, a in zip(names, arguments, strict=True)]
        self._releasing = [(getattr(library.RELEASING, n), a) for n, a in zip(names, arguments, strict=True)]

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        buffers = [*self._inputs.values(), self._outputs, *self._integers.values()]
        return sum(buffer.nbytes for buffer in buffers)

    def run(self, panel: Panel) -> Answer:
        """Compute every call over a panel with the program's columns and at most `capacity` bars."""
        bars = panel.bars
        self._end.value = bars - 1
        for column, buffer in self._inputs.items():
            buffer[:bars] = getattr(panel, column)
        for function, arguments in self._releasing if bars > _LOCK_RELEASED_ABOVE else self._holding:
            code = function(*arguments)
            if code != _SUCCESS:
                raise _failure(function.__name__, code)
        for row, values in self._integers.items():
            self._outputs[row, :bars] = values[:bars]
        return cut(self._program, self._outputs, bars)

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
        return (ctypes.c_int(0), self._end, *inputs, *parameters, *ignored, *outputs)


class Plans:
    """A cache of plans by program. Above `limit` bytes of buffers, the least recently used plans are dropped."""

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
