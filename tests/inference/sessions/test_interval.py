"""An interval is met by its own bar, once."""

import numpy as np
import pytest

from inference.calls.answers import NOMINAL_COVERAGE
from inference.calls.servicer import DEFAULT_LEVELS
from inference.sessions.interval import LOWER, UPPER, Interval

LEVELS = (0.1, 0.5, 0.9)
QUANTILES = np.array([1.0, 2.0, 3.0])


@pytest.fixture
def interval():
    interval = Interval()
    interval.expect(7, LEVELS, QUANTILES)
    return interval


@pytest.mark.parametrize(("close", "hit"), [(0.9, False), (1.0, True), (2.5, True), (3.0, True), (3.1, False)])
def test_a_close_is_inside_or_not(interval, close, hit):
    assert interval.meet(7, close) is hit


def test_other_bars_say_nothing_and_its_own_speaks_once(interval):
    assert interval.meet(6, 2.0) is None
    assert interval.meet(8, 2.0) is None
    assert interval.meet(7, 2.0) is True
    assert interval.meet(7, 9.0) is None


def test_a_forecast_that_comes_late_does_not_replace_a_newer_one(interval):
    interval.expect(6, LEVELS, 10 * QUANTILES)
    assert interval.meet(7, 2.0) is True


def test_the_tails_span_the_nominal_coverage_and_are_forecast_unless_others_are_asked_for():
    assert pytest.approx(NOMINAL_COVERAGE) == UPPER - LOWER
    assert {LOWER, UPPER} <= set(DEFAULT_LEVELS)
