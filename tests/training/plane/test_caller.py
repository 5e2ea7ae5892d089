"""Callers by their keys."""

import pytest

from gateway.access.auth import Authenticator
from market_inference.contract import keys
from training.plane import caller
from training.plane.errors import InvalidRequestError, Violation


def test_an_owner_that_the_store_has_no_room_for_is_refused_with_the_limit() -> None:
    """PostgreSQL refused the row, and the answer named no field."""
    for length in (200, 201):
        secret, key = keys.issue("x" * length, [caller.RUN])
        authenticator, headers = Authenticator(keys.Keys([key])), {"x-api-key": secret}
        if length == 200:
            assert caller.client(authenticator, headers, caller.RUN).name == "x" * 200
        else:
            with pytest.raises(InvalidRequestError) as caught:
                caller.client(authenticator, headers, caller.RUN)
    text = "the credential's name has 201 characters, at most 200 here"
    assert caught.value.violations == (Violation("owner", text, 200),)
