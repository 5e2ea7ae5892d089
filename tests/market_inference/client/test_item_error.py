"""The error of one item, in the terms of the caller's data."""

import pytest

from market_inference import errors
from market_inference.client.inputs.items import Source
from market_inference.client.item_error import item_error
from market_inference.contract.errors import InvalidRequestError, Violation


@pytest.mark.parametrize(
    ("field", "text", "remedy"),
    [
        ("series[0].values", "too long (max 10000, got 20000)", "; send the newest 10000, such as [-10000:]"),
        ("panels[0].close", "too long (max 5000, got 5001)", "; send the newest 5000, such as [-5000:]"),
        ("series[0].values", "too short (min 30, got 2)", ""),
        ("series", "too long (max 256, got 300)", ""),
    ],
)
def test_a_column_that_is_too_long_names_the_newest_values(field: str, text: str, remedy: str) -> None:
    status = InvalidRequestError([Violation(field, text, "repeated.max_items")]).status("r-1")
    error = item_error(errors.from_status(status), Source("AAPL"), 0)
    assert error.message == f"AAPL: {field}: {text}{remedy}"
