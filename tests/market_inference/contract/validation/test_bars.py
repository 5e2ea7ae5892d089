"""The order of a bar's prices: the three checks agree with the comparisons of ORDER."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from market_inference.contract.validation import bars

price = st.sampled_from([0.0, -0.0, 1.0, 1.5, 2.0, 1e-310, 1e308, -1.0])
columns = st.lists(st.tuples(price, price, price, price), min_size=1, max_size=5)


def by_definition(bar: dict[str, float]) -> bool:
    return all(bar[lower] <= bar[upper] for lower, upper in bars.ORDER if {lower, upper} <= bar.keys())


@given(columns)
def test_the_check_of_many_bars_equals_the_definition_of_the_rule(rows):
    arrays = dict(zip(bars.PRICES, np.array(rows).T, strict=True))
    expected = all(by_definition(dict(zip(bars.PRICES, row, strict=True))) for row in rows)
    assert bars.ordered(arrays) is expected
    disorder = bars.first_disorder(arrays)
    assert (disorder is None) is expected
    if disorder is not None:
        assert arrays[disorder.lower][disorder.bar] > arrays[disorder.upper][disorder.bar]


@given(st.dictionaries(st.sampled_from(bars.PRICES), price))
def test_absent_prices_take_no_part(bar):
    disorder = bars.disorder_of(bar)
    assert (disorder is None) is by_definition(bar)
    arrays = {name: np.array([value]) for name, value in bar.items()}
    assert bars.first_disorder(arrays) == disorder
    assert "close" not in bar or bars.ordered(arrays) is (disorder is None)


def test_a_disorder_names_both_prices_and_their_values():
    disorder = bars.disorder_of({"high": 3.0, "low": 3.5, "volume": 0.0})
    assert disorder == bars.Disorder("low", "high", 0, "low must not exceed high (got 3.5 > 3)")


def test_prices_that_an_adjustment_rounds_apart_are_in_order():
    high, close = np.array([105.1]), np.nextafter(np.array([105.1]), np.inf)
    low = np.array([100.0])
    assert bars.ordered({"open": low, "high": high, "low": low, "close": close})
    assert bars.first_disorder({"high": high, "low": low, "close": close}) is None
    assert bars.disorder_of({"high": float(high[0]), "close": float(close[0])}) is None


def test_prices_further_apart_are_refused_with_the_digits_that_differ():
    disorder = bars.disorder_of({"high": 105.1, "close": 105.100000000001})
    assert disorder is not None
    assert disorder.description == "close must not exceed high (got 105.100000000001 > 105.1)"
    assert not bars.ordered({"high": np.array([105.1]), "close": np.array([105.100000000001])})


def test_the_largest_prices_do_not_overflow():
    columns = {"low": np.array([1e308]), "high": np.array([-1e308])}
    assert bars.first_disorder(columns) is not None
