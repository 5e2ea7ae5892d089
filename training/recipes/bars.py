"""Bars of a dataset's file.

Owns the reading for recipes and for the gate. The plane has checked the file before; a row that is wrong here is
refused by name.
"""

import math
from array import array
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.recipes import table
from training.recipes.run import DataRefusedError


def read(path: Path) -> dict[str, npt.NDArray[np.float64]]:
    """Closes by symbol, oldest first, float64. Raises DataRefusedError naming a bad row."""
    with path.open(encoding="utf-8-sig", newline="") as lines:
        return closes(lines)


def closes(lines: Iterable[str]) -> dict[str, npt.NDArray[np.float64]]:
    """As read(), from the lines of the file: 8 bytes for each bar."""
    found: dict[str, array[float]] = defaultdict(lambda: array("d"))
    for row, (close, symbol) in table.rows(lines, ["close"], ["symbol"]):
        value = table.number(close)
        if not math.isfinite(value) or value <= 0:
            raise DataRefusedError(f"row {row}: close must be a finite number above 0")
        found[symbol.strip()].append(value)
    return {symbol: np.frombuffer(values) for symbol, values in found.items()}
