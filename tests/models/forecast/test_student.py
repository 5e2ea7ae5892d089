"""The Student table against scipy, far into the tails."""

import numpy as np
import pytest
import torch
from scipy.stats import t as student

from models.forecast.student import LONGEST_HORIZON, degrees_of_freedom, quantile, table

HORIZONS = np.arange(1.0, LONGEST_HORIZON + 1)


@pytest.mark.parametrize("level", [1e-12, 1e-6, 0.001, 0.05, 0.1, 0.3, 0.49, 0.5, 0.8, 0.975, 1 - 1e-9])
def test_table_holds_the_unit_variance_quantiles(level: float) -> None:
    freedom = degrees_of_freedom(HORIZONS)
    expected = student.ppf(level, freedom) * np.sqrt((freedom - 2) / freedom)
    np.testing.assert_allclose(table((level,), torch.device("cpu"))[:, 0].numpy(), expected, rtol=1e-9)


def test_freedom_grows_from_four_with_the_horizon() -> None:
    freedom = degrees_of_freedom(np.array([1.0, 48.0, 1e9]))
    np.testing.assert_allclose(freedom, [4, 8, 4 + 4 * 9 * np.log(10) / np.log(48)])
    assert degrees_of_freedom(np.array([1e30]))[0] == 30


def test_quantile_serves_any_freedom() -> None:
    freedom = np.array([4.0, 5.5, 7.7, 30.0, 200.0])
    np.testing.assert_allclose(quantile(0.03, freedom), student.ppf(0.03, freedom), rtol=1e-12)


def test_levels_next_to_each_other_never_cross() -> None:
    crowd = np.nextafter(0.3 + 1e-16 * np.arange(40), 1).tolist()
    levels = (*crowd, 0.5 - 1e-12, 0.5, 0.5 + 1e-12)
    assert (table(levels, torch.device("cpu")).diff(dim=1) >= 0).all()
