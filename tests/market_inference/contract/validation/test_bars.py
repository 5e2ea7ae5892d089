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
    assert bars.ordered(*arrays.values()) is expected
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


def test_a_disorder_names_both_prices_and_their_values():
    disorder = bars.disorder_of({"high": 3.0, "low": 3.5, "volume": 0.0})
    assert disorder == bars.Disorder("low", "high", 0, "low must not exceed high (got 3.5 > 3)")
