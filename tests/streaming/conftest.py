"""Real processes that a test may kill."""

from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks.services import Services


@pytest.fixture
def services(tmp_path) -> Iterator[Services]:
    with Services(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def standing(tmp_path_factory) -> Iterator[Services]:
    """A gateway before one replica, shared by tests that leave it as it is."""
    with Services(tmp_path_factory.mktemp("standing")) as running:
        running.start_gateway([running.start_replica()], session_idle_seconds=2, max_sessions_per_client=20)
        running.wait_loaded("forecast", "indicators")
        yield running


@pytest.fixture(scope="session")
def market() -> dict[str, np.ndarray]:
    """Bars of one instrument: columns [1200]."""
    dice = np.random.default_rng(11)
    close = 100 * np.exp(np.cumsum(dice.normal(0, 0.01, 1200)))
    opened = np.r_[close[0], close[:-1]]
    high = np.maximum(opened, close) * (1 + dice.uniform(0, 0.005, 1200))
    low = np.minimum(opened, close) * (1 - dice.uniform(0, 0.005, 1200))
    volume = dice.integers(1, 10_000, 1200).astype(float)
    return {"open": opened, "high": high, "low": low, "close": close, "volume": volume}
