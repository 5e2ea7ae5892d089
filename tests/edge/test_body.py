"""The text of a body that is no JSON."""

import pytest

from edge.body import loads
from market_inference.contract.errors import InvalidRequestError

NULL = "JSON has no NaN and no infinity: fill a missing value, or leave its row out; for covariates write null"
TABLE = "a table needs the header Content-Type: text/csv"


@pytest.mark.parametrize(
    ("raw", "remedy"),
    [
        (b'{"time_series": [1.0, NaN, 2.0]}', NULL),
        (b'{"time_series": [1.0, Infinity]}', NULL),
        ('{"close": -Infinity}', NULL),
        (b"date,close\n2024-01-02,101\n", TABLE),
        ("date;close", TABLE),
        (b"", TABLE),
        (b'{"name": "NaN", "horizon": 1, "quantiles": ]}', ""),
        (b'{"horizon": nine}', ""),
    ],
)
def test_a_body_that_is_no_json_tells_what_was_meant(raw, remedy):
    with pytest.raises(InvalidRequestError, match=r"the body is not JSON: .* at line 1, column") as refused:
        loads(raw)
    text = refused.value.violations[0].description
    assert text.endswith(f"; {remedy}") if remedy else (NULL not in text and TABLE not in text)
