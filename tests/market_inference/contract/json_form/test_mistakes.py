"""The sentence of a status in the names of the caller's JSON."""

import pytest

from market_inference.contract.errors import InvalidRequestError, Violation
from market_inference.contract.json_form import mistakes


@pytest.mark.parametrize(
    ("field", "description", "sentence"),
    [
        ("series[0].values", "too short (min 30, got 2)", "time_series too short (min 30, got 2)"),
        ("series[0].values[3]", "must be finite (got nan)", "time_series[3] must be finite (got nan)"),
        ("indicators[0].name", "unknown function 'RSY'", "indicators[0].name: unknown function 'RSY'"),
        ("groups[1]", "the group is too large", "groups[1]: the group is too large"),
        ("", "and 3 more", "and 3 more"),
    ],
)
def test_a_description_continues_the_fields_name_or_stands_behind_a_colon(field, description, sentence):
    status = InvalidRequestError([Violation(field, description)]).status("r-1")
    assert mistakes.text(status, {"series[0].values": "time_series"}) == sentence
