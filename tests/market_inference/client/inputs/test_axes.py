"""The doubt about a 2-D array whose columns look like the series."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from statsmodels.datasets import co2, elnino

from market_inference.cli.demo import bars
from market_inference.client.inputs.axes import doubts
from market_inference.client.inputs.series import series

Array = NDArray[np.float64]
DAYS = 300


def _columns(name: str) -> Array:
    """Windows of the five stocks' bars [series, days]."""
    found = [one.columns[name] for one in bars.load()]
    return np.stack(
        [one[len(one) - DAYS * (at + 1) : len(one) - DAYS * at] for one in found for at in range(len(one) // DAYS)]
    )


def _walks(count: int, days: int) -> Array:
    random = np.random.default_rng(7)
    return random.lognormal(4, 1, (count, 1)) * np.exp(np.cumsum(random.normal(0, 0.01, (count, days)), axis=1))


CLOSES = _columns("close")
WEEKS = co2.load_pandas().data["co2"].ffill().to_numpy()
PANELS = {
    "closes": CLOSES,
    "60 closes": CLOSES[:, :60],
    "8 closes": CLOSES[:8],
    "float32": CLOSES.astype(np.float32),
    "cents": np.rint(100 * CLOSES).astype(np.int64),
    "walks": _walks(60, 300),
    "a universe": _walks(256, 256),
    "late listings": np.where(np.arange(DAYS) < 3 * np.arange(len(CLOSES))[:, None], np.nan, CLOSES),
    "masked": np.ma.masked_invalid(np.where(np.arange(DAYS) < 3 * np.arange(len(CLOSES))[:, None], np.nan, CLOSES)),
}
ONE = CLOSES[0]
EITHER_WAY = {
    "returns": np.diff(np.log(CLOSES), axis=1),
    "volumes": _columns("volume"),
    "sea temperatures": elnino.load_pandas().data.iloc[:, 1:].to_numpy(dtype=np.float64),
    "years by weeks": WEEKS[:2080].reshape(40, 52),
    "copies": np.tile(ONE, (40, 1)),
    "copies with noise": ONE * (1 + np.random.default_rng(7).normal(0, 1e-4, (40, DAYS))),
    "scenarios": ONE * np.arange(1, 41)[:, None],
    "overlapping windows": np.lib.stride_tricks.sliding_window_view(ONE, 60)[:200],
    "constants": np.full((40, 50), 3.0),
    "constants by row": np.tile(np.arange(1.0, 41)[:, None], (1, 60)),
    "zeros": np.zeros((40, 50)),
    "missing": np.full((40, 50), np.nan),
    "few columns": CLOSES[:7],
    "texts": CLOSES.astype(str),
    "one column": CLOSES[:, :1],
}


@pytest.mark.parametrize("name", PANELS)
def test_prices_with_a_series_in_a_column_are_doubted_and_in_a_row_are_not(name: str) -> None:
    panel: Any = PANELS[name]
    assert doubts(panel) == ()
    (doubt,) = doubts(panel.T)
    rows, columns = panel.T.shape
    assert doubt.startswith(
        f"the array of shape ({rows}, {columns}) was read as [series, values], {rows} series of {columns} values"
    )
    assert "give values.T, or a DataFrame with a column for each series" in doubt


@pytest.mark.parametrize("name", EITHER_WAY)
def test_arrays_without_a_clear_axis_of_time_are_not_doubted(name: str) -> None:
    assert doubts(EITHER_WAY[name]) == ()
    assert doubts(EITHER_WAY[name].T) == ()


def test_the_doubt_goes_with_the_series_of_an_array_and_not_with_a_list_of_series() -> None:
    assert series(CLOSES.T).notes == doubts(CLOSES.T)
    assert series(CLOSES).notes == ()
    assert series(list(CLOSES.T)).notes == ()
