"""The platform's limits for input and output, by the kind of job."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.calls.servicer import Servicer
from market_inference.contract.json_form import decode
from market_inference.contract.methods import METHODS
from serverless import limits

TEXT = "x" * 1_000_000


@pytest.mark.parametrize(("job_id", "limit", "texts"), [("job-1", "10000000", 10), ("sync-1", "20000000", 20)])
def test_an_input_over_the_jobs_limit_is_refused_before_decoding(ask, monkeypatch, job_id, limit, texts):
    monkeypatch.setattr(decode, "message", lambda kind, body: pytest.fail("it was decoded"))
    result = ask("sentiment", job_id=job_id, texts=[TEXT] * texts)
    assert result["error_type"] == "validation"
    assert f"too large (max {limit} bytes, got" in result["error"]


def test_an_input_between_the_limits_passes_on_runsync_and_fails_on_run(ask):
    panel = {"close": [1.0] * 10_000, "volume": [123456.123456] * 10_000}
    given = {"panels": [panel] * 60, "indicators": [{"name": "SMA", "last": 1}]}
    assert "too large (max 10000000" in ask("indicators", job_id="job", **given)["error"]
    # The next limit is the contract's 8 MiB, with an error of its own.
    assert "too large (max 8388608" in ask("indicators", job_id="sync-job", **given)["error"]


@pytest.mark.parametrize("action", ["predict", "predict_stream"])
def test_a_request_for_an_answer_over_the_contracts_limit_is_refused_before_computing(ask, monkeypatch, action):
    monkeypatch.setattr(Servicer, "predict", lambda *_: pytest.fail("it was computed"))
    levels = [at / 1000 for at in range(1, 100)]
    result = ask(action, series=[{"values": [1.0, 2.0] * 20}] * 256, horizon=256, quantiles=levels)
    assert result["error_type"] == "validation"
    assert f"the answer would be too large (max {METHODS['Predict'].max_answer_bytes} bytes" in result["error"]


@pytest.mark.parametrize(("job_id", "fits"), [("job-1", False), ("sync-1", True)])
def test_an_output_over_the_jobs_limit_is_an_error(ask, job_id, fits):
    panel = {"close": [1.0 / 3 + at for at in range(10_000)]}
    result = ask("indicators", job_id=job_id, panels=[panel] * 9, indicators=["SMA", "EMA", "RSI", "MACD", "ROC"])
    assert (result["status"] == "success") is fits
    assert len(json.dumps(result, ensure_ascii=False)) < limits.of_job(job_id)
    if not fits:
        assert result["error_type"] == "runtime"
        assert "the answer is too large (max 10000000 bytes, got 1" in result["error"]


def test_a_streamed_output_over_the_chunk_limit_is_refused():
    with pytest.raises(limits.OutputTooLargeError, match="max 1000000 bytes"):
        limits.check_chunk({"output": TEXT})


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(codec="utf-8")),
    lambda inside: st.lists(inside) | st.dictionaries(st.text(st.characters(codec="utf-8")), inside),
    max_leaves=40,
)


@given(json_values)
def test_the_estimate_is_never_below_what_the_sdk_posts(value):
    assert limits.posted_bytes(value) >= len(json.dumps(value, ensure_ascii=False).encode())
