"""When a failed call is sent again, and when an answer is too late."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_inference import errors
from market_inference.client.attempt import Attempt
from market_inference.client.connection import Connection
from market_inference.client.retries import Retries

DRAWS = st.floats(0, 1, exclude_max=True)
UNAVAILABLE = errors.UnavailableError("away")


@given(tried=st.integers(1, 20), draw=DRAWS)
def test_pauses_grow_with_jitter_up_to_the_longest(tried: int, draw: float) -> None:
    retries = Retries(attempts=20, first_pause=0.1, longest_pause=1.0)
    pause = retries.pause(UNAVAILABLE, tried, 100.0, draw)
    full = min(1.0, 0.1 * 2 ** (tried - 1))
    assert pause is not None
    assert full / 2 <= pause <= full


@given(after=st.floats(0.001, 10), draw=DRAWS)
def test_the_service_s_advice_is_never_undercut(after: float, draw: float) -> None:
    for kind in (errors.OverloadedError, errors.RateLimitedError, errors.UnavailableError):
        pause = Retries().pause(kind("later", retry_after=after), 1, 100.0, draw)
        assert pause is not None
        assert pause >= after


@given(draw=DRAWS, left=st.floats(0, 0.05))
def test_no_pause_outlasts_the_deadline(draw: float, left: float) -> None:
    assert Retries().pause(UNAVAILABLE, 1, left, draw) is None


def test_attempts_are_bounded_and_zero_is_never() -> None:
    assert Retries(attempts=2).pause(UNAVAILABLE, 2, 9.0, 0.5) is not None
    assert Retries(attempts=2).pause(UNAVAILABLE, 3, 9.0, 0.5) is None
    assert Retries(attempts=0).pause(UNAVAILABLE, 1, 9.0, 0.5) is None


def test_what_the_caller_must_change_is_never_sent_again() -> None:
    for kind in (errors.InvalidRequestError, errors.UnauthenticatedError, errors.DeadlineExceededError):
        assert Retries().pause(kind("no", retry_after=0.1), 1, 9.0, 0.5) is None
    assert Retries().pause(errors.OverloadedError("no advice"), 1, 9.0, 0.5) is None


def test_an_answer_after_the_deadline_is_refused() -> None:
    """gRPC may hand over an answer that arrives beside the timer of the deadline."""
    attempt = Attempt(Connection("127.0.0.1:1", None, None), Retries(), 30.0, timeout=1e-9)
    with pytest.raises(errors.DeadlineExceededError):
        attempt.answered()
    Attempt(Connection("127.0.0.1:1", None, None), Retries(), math.inf).answered()


def test_the_error_of_the_last_try_names_that_of_the_first() -> None:
    attempt = Attempt(Connection("127.0.0.1:1", None, None), Retries(), 30.0)
    attempt.pause_after(errors.UnavailableError("no inference replica is ready", reason="UNAVAILABLE"))
    attempt.pause_after(errors.UnavailableError("the gateway is draining", reason="DRAINING"))
    with pytest.raises(errors.RateLimitedError) as raised:
        attempt.pause_after(errors.RateLimitedError("2000 units a day", reason="QUOTA_EXCEEDED", retry_after=9000.0))
    first = "the first try failed with UNAVAILABLE: no inference replica is ready"
    assert raised.value.message == f"2000 units a day; {first}"


def test_the_error_of_a_timeout_names_the_timeout_and_the_first_error() -> None:
    attempt = Attempt(Connection("127.0.0.1:1", None, None), Retries(), 30.0, timeout=2.5)
    attempt.pause_after(errors.UnavailableError("no replica", reason="UNAVAILABLE"))
    with pytest.raises(errors.DeadlineExceededError) as raised:
        attempt.pause_after(attempt.too_late)
    assert raised.value.message == (
        "the timeout passed before the answer was there; timeout=2.5 s (--timeout on the command line); "
        "the first try failed with UNAVAILABLE: no replica"
    )


def test_the_same_error_again_is_told_once() -> None:
    attempt = Attempt(Connection("127.0.0.1:1", None, None), Retries(attempts=1), 30.0)
    attempt.pause_after(errors.UnavailableError("no replica", reason="UNAVAILABLE"))
    with pytest.raises(errors.UnavailableError, match=r"^no replica$"):
        attempt.pause_after(errors.UnavailableError("no replica", reason="UNAVAILABLE"))
