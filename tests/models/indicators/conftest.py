"""Real bars for the indicator tests."""

import numpy as np
import pytest
from bokeh_sampledata import stocks

from models.indicators import COLUMNS, Panel


@pytest.fixture(scope="session")
def aapl() -> Panel:
    """3,270 daily bars of AAPL, 2000 to 2013, unadjusted for splits."""
    return Panel(**{name: np.array(stocks.AAPL[name], dtype=np.float64) for name in COLUMNS})
