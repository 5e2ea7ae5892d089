"""A panel consists of equal-length contiguous float64 columns; other arrays are refused."""

import numpy as np
import pytest

from models.indicators import Panel


def test_bars_is_the_length_of_any_given_column() -> None:
    assert Panel(volume=np.ones(7)).bars == 7


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"close": np.empty(0)},
        {"close": np.ones(4), "high": np.ones(5)},
        {"close": np.ones(5, dtype=np.float32)},
        {"close": np.ones((5, 2))},
        {"close": np.ones(10)[::2]},
    ],
    ids=["no column", "no bar", "unequal", "float32", "two dimensions", "strided"],
)
def test_a_malformed_panel_is_refused(columns: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"panel needs|has 4 bars|must be"):
        Panel(**columns)
