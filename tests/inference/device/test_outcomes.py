"""A model's outcome that is not finite, or has the wrong shape, never becomes an answer."""

import warnings

import numpy as np
import pytest

from inference.device import outcomes
from models import indicators
from models.forecast import Forecast, Series

LEVELS = (0.1, 0.5, 0.9)
ITEM = Series(np.arange(1.0, 41.0), 4, LEVELS)
GOOD = Forecast(np.ones(4), np.ones((4, 3)), 0.0, True, 40, float("nan"), 0)


def spoiled(value: float) -> Forecast:
    quantiles = np.ones((4, 3))
    quantiles[2, 1] = value
    return GOOD._replace(quantiles=quantiles)


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (spoiled(np.nan), "not finite"),
        (spoiled(np.inf), "not finite"),
        (GOOD._replace(point=np.array([1.0, 1.0, 1.0, -np.inf])), "not finite"),
        (GOOD._replace(point=np.ones(3)), "shape"),
        (GOOD._replace(quantiles=np.ones((3, 4))), "shape"),
        (None, "type"),
        ("text", "type"),
    ],
)
def test_a_forecast_is_invalid_alone_among_valid_ones(outcome, reason):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = outcomes.forecasts([ITEM] * 3, [GOOD, outcome, RuntimeError()])
    assert found == {1: reason}
    assert outcomes.forecasts([ITEM] * 2, [GOOD, GOOD]) == {}


def test_finite_numbers_of_any_size_are_valid():
    huge = GOOD._replace(quantiles=np.full((4, 3), 1e300), point=np.full(4, -1e300))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert outcomes.forecasts([ITEM], [huge]) == {}


@pytest.mark.parametrize("outcome", [np.array([0.1, np.nan, 0.9]), np.ones(2), [0.1, 0.2, 0.7]])
def test_sentiment_needs_three_finite_probabilities(outcome):
    assert set(outcomes.sentiments(["a", "b"], [np.array([0.1, 0.2, 0.7]), outcome])) == {1}


def test_indicators_need_a_row_per_output_and_may_have_a_warm_up():
    program = indicators.compile([indicators.Spec("MACD")])
    task = indicators.Task(indicators.Panel(close=np.arange(1.0, 41.0)), program)
    (rows,) = indicators.load().run([task])
    assert np.isnan(rows).any()
    assert outcomes.indicators([task, task], [rows, rows[:2]]) == {1: "shape"}
