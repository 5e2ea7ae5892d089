"""The axes of a 2-D array: a doubt about an array whose columns, not rows, look like the series.

Owns the comparison of neighbours in a sample of the array. series.py reads the rows as series in any case.
"""

from typing import Any

import numpy as np

from market_inference.client.arrays import Floats

_LEAST = 8
"""Rows and columns of an array that is looked at; fewer neighbours show nothing."""
_SAMPLE = 16
_SWAPPED = 10.0
_DRIFT = 2.0


def doubts(values: Any) -> tuple[str, ...]:
    """A note if an array [rows, columns], read as [series, values], looks like [values, series]; else none.

    Two symbols' prices are far apart and two days' prices are close. An array looks swapped when the typical relative
    step from column to column is _SWAPPED times the step from row to row or more, and the rows drift apart as the rows
    of one time axis do: over half of the array by _DRIFT times the step or more. The drift tells an array of dates from
    copies of one series with a little noise, whose rows are as close.
    """
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iuf" or min(values.shape) < _LEAST:
        return ()
    rows, columns = values.shape
    half = rows // 2
    at_rows, at_columns = slice(0, half, -(-half // _SAMPLE)), slice(0, columns - 1, -(-(columns - 1) // _SAMPLE))
    here = _floats(values[at_rows, at_columns])
    step = _typical(here, _floats(values[at_rows, 1:][:, at_columns]))
    between = _typical(here, _floats(values[1:, at_columns][at_rows]))
    if not step >= _SWAPPED * between > 0 or not _typical(here, _floats(values[half:, at_columns][at_rows])) >= (
        _DRIFT * between
    ):
        return ()
    return (
        f"the array of shape {values.shape} was read as [series, values], {rows} series of {columns} values, but looks "
        f"like [values, series]: the values of a row differ by {step:.2g} of a value, those of a column by "
        f"{between:.2g}; if the columns are the series, give values.T, or a DataFrame with a column for each series",
    )


def _floats(values: Any) -> Floats:
    return np.asarray(np.ma.filled(values.astype(np.float64), np.nan))


def _typical(here: Floats, there: Floats) -> float:
    """The median of the relative steps, without the steps from zero and at missing values; NaN for none."""
    with np.errstate(all="ignore"):
        steps = np.abs((there - here) / here).ravel()
    steps = steps[np.isfinite(steps)]
    steps.sort()
    return float(steps[len(steps) // 2]) if len(steps) else np.nan
