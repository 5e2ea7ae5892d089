"""The answer for one panel."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.indicators.program import Program

Answer: TypeAlias = NDArray[np.float64] | list[NDArray[np.float64]]
"""Rows of float64, one per output of the program, oldest bar first, each C-contiguous. One array [outputs, n] when all
calls return the same number of bars, otherwise a list of arrays [n_i]."""


def cut(program: Program, outputs: NDArray[np.float64], bars: int) -> Answer:
    """Copy the answer for a panel of `bars` bars out of `outputs` [outputs, at least `bars`]."""
    if program.same_last:
        return outputs[:, _start(bars, program.last[0]) : bars].copy()
    return [row[_start(bars, last) : bars].copy() for row, last in zip(outputs, program.last, strict=True)]


def _start(bars: int, last: int | None) -> int:
    return 0 if last is None else max(0, bars - last)
