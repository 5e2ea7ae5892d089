"""Documents of errors: the request id, and the time of the next try in the document and in the header."""

import orjson
import pytest

from edge import problem
from market_inference.contract.errors import OverloadedError, UnauthenticatedError


@pytest.mark.parametrize(("seconds", "header"), [(0.25, "1"), (2.6, "3")])
def test_a_refusal_for_load_says_when_to_try_again(seconds, header):
    answer = problem.response(OverloadedError("full", retry_after=seconds), "the id", {})
    document = orjson.loads(answer.body)
    assert document["retry_after"] == pytest.approx(seconds)
    assert document["request_id"] == "the id"
    assert answer.headers["retry-after"] == header


def test_another_refusal_says_no_time():
    answer = problem.response(UnauthenticatedError("no key"), "the id", {})
    assert "retry_after" not in orjson.loads(answer.body)
    assert "retry-after" not in answer.headers
