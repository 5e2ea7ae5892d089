"""Bars of a dataset's file.

Owns the reading for recipes. The plane has checked the file before; a row that is wrong here is refused by name.
"""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.recipes.run import DataRefusedError


def read(path: Path) -> dict[str, npt.NDArray[np.float64]]:
    """Closes by symbol, oldest first, float64. Raises DataRefusedError naming a bad row."""
    found: dict[str, list[float]] = defaultdict(list)
    with path.open(encoding="utf-8-sig", newline="") as lines:
        for row, fields in enumerate(csv.DictReader(lines), start=2):
            given = {(name or "").strip().lower(): value or "" for name, value in fields.items()}
            try:
                close = float(given["close"])
            except (KeyError, ValueError):
                raise DataRefusedError(f"row {row}: close is no number") from None
            if not np.isfinite(close) or close <= 0:
                raise DataRefusedError(f"row {row}: close must be a finite number above 0")
            found[given.get("symbol", "").strip()].append(close)
    return {symbol: np.array(values) for symbol, values in found.items()}
