"""Scalar arguments: converted if harmless, else refused with name, value and expectation."""

import math
from decimal import Decimal

import numpy as np
import pytest

from market_inference.client.inputs import arguments
from market_inference.errors import ArgumentError, InvalidRequestError


@pytest.mark.parametrize("value", [10, 10.0, np.int64(10), np.float32(10)])
def test_whole_numbers(value: object) -> None:
    assert arguments.whole(value, "horizon", 1) == 10


@pytest.mark.parametrize("value", ["10", -1, 0, 10.5, math.nan, math.inf, None, True, [10], 1 << 32, Decimal("10.5")])
def test_other_values_are_no_whole_number(value: object) -> None:
    with pytest.raises(ArgumentError, match=r"^horizon: expected a whole number from 1, got "):
        arguments.whole(value, "horizon", 1)


@pytest.mark.parametrize("value", ["20", 20, 20.0, np.int32(20), " 20 "])
def test_numbers_may_be_written_as_text(value: object) -> None:
    assert arguments.number(value, "x") == 20.0


@pytest.mark.parametrize(
    "value", ["x", "", None, math.nan, "inf", True, [1], 10**400, pytest.param(10**5000, id="10**5000")]
)
def test_other_values_are_no_number(value: object) -> None:
    with pytest.raises(ArgumentError, match=r"^x: expected a number, got "):
        arguments.number(value, "x")


def test_seconds() -> None:
    assert arguments.seconds(2, "timeout") == 2.0
    assert arguments.seconds(math.inf, "timeout") == arguments.seconds(1e18, "timeout") == math.inf
    assert arguments.seconds(10**400, "timeout") == math.inf


@pytest.mark.parametrize("value", [0, -1, math.nan, "5", None, True])
def test_other_values_are_no_seconds(value: object) -> None:
    with pytest.raises(ArgumentError, match=r"^timeout: expected seconds above 0"):
        arguments.seconds(value, "timeout")


def test_levels() -> None:
    assert arguments.levels(None) == []
    assert arguments.levels(0.5) == [0.5]
    given = [0.1, 0.9]
    assert arguments.levels(given) == given
    assert arguments.levels(given) is not given
    assert arguments.levels([np.float64(0.5)]) == [0.5]
    assert arguments.levels(np.array([0.1, 0.9])) == arguments.levels((0.1, 0.9)) == [0.1, 0.9]
    assert arguments.central_levels(0.95) == [0.025, 0.975]
    assert arguments.central_levels([0.8, 0.9]) == [0.1, 0.9, 0.05, 0.95]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0.5", "quantiles: expected levels between 0 and 1"),
        (["0.5"], r"quantiles\[0\]: expected a level between 0 and 1, got '0.5'"),
        (
            [0.1, 90],
            r"quantiles\[1\]: expected a level between 0 and 1, both excluded, .*, got 90; for 90% write 0.9",
        ),
        ([0, 1], r"quantiles\[0\]: expected a level between 0 and 1, both excluded, such as 0.01 or 0.99, got 0$"),
        ([0.5, 1.0], r"quantiles\[1\]: .* got 1$"),
        ([-0.5], r"quantiles\[0\]: .* got -0.5$"),
        (10**400, r"quantiles\[0\]: expected a level between 0 and 1, got 10+\.\.\."),
        ([None], r"quantiles\[0\]: expected a level"),
        ({0.5: 1}, "quantiles: expected levels"),
    ],
)
def test_other_values_are_no_levels(value: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        arguments.levels(value)


@pytest.mark.parametrize("value", ["ü", "a b", "", "x" * 129, 5, "a\n"])
def test_request_ids_are_such_as_the_service_keeps(value: object) -> None:
    assert arguments.request_id("job-7:a/b") == "job-7:a/b"
    with pytest.raises(ArgumentError, match="request_id: expected 1 to 128 characters"):
        arguments.request_id(value)


@pytest.mark.parametrize("value", ["high", "", None, 1])
def test_words_are_listed(value: object) -> None:
    with pytest.raises(ArgumentError, match="priority: expected 'interactive' or 'batch', got"):
        arguments.one_of(value, "priority", ("interactive", "batch"))


def test_traceparent() -> None:
    given = f"00-{'a' * 32}-{'b' * 16}-01"
    assert arguments.traceparent(given) == given
    with pytest.raises(ArgumentError, match="traceparent: expected W3C Trace Context"):
        arguments.traceparent("00-abc\n")


def test_params() -> None:
    assert arguments.params({"timeperiod": "20"}, "p") == {"timeperiod": 20.0}
    assert arguments.params(None, "p") == {}
    for value, message in (
        ({"timeperiod": "x"}, "p.timeperiod: expected a number, got 'x'"),
        ([1], "p: expected param"),
    ):
        with pytest.raises(ArgumentError, match=message):
            arguments.params(value, "p")


def test_the_error_is_of_every_kind_that_a_caller_may_catch_and_names_the_field() -> None:
    error = ArgumentError("horizon", "expected a whole number")
    assert isinstance(error, InvalidRequestError | ValueError | TypeError)
    assert (str(error), error.violations) == (
        "horizon: expected a whole number",
        [("horizon", "expected a whole number")],
    )


def test_long_values_are_cut() -> None:
    with pytest.raises(ArgumentError) as caught:
        arguments.number("x" * 10_000, "p")
    assert len(str(caught.value)) < 120
