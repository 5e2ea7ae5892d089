"""The fast check and the explaining check agree, and no byte of a request is lost."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_inference.contract import methods
from market_inference.contract.encoding import twins
from market_inference.contract.errors import InvalidRequestError
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.validation import check as checking
from market_inference.contract.validation import explain
from market_inference.contract.validation.check import check
from tests.market_inference.contract.validation import scratch

PREDICT, INDICATORS = methods.METHODS["Predict"], methods.METHODS["ComputeIndicators"]
SENTIMENT, ANALYZE = methods.METHODS["AnalyzeSentiment"], methods.METHODS["Analyze"]
GOOD = [100.0 + i for i in range(30)]

number = st.one_of(st.floats(0.5, 2.0), st.sampled_from([math.nan, math.inf, -1.0, 0.0, 1e308]))
values = st.lists(number, min_size=28, max_size=33)
covariates = st.lists(number, max_size=3)
series = st.builds(
    pb.Series,
    symbol=st.text(max_size=66),
    values=st.one_of(st.just(GOOD), values),
    past_covariates=covariates,
    future_covariates=covariates,
)
predicts = st.builds(
    pb.PredictRequest,
    series=st.lists(series, max_size=3),
    horizon=st.sampled_from([0, 1, 10, 365, 366]),
    quantiles=st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0, math.nan]), max_size=4),
    model=st.sampled_from(["", "auto", "m" * 128, "m" * 129]),
    covariates=st.lists(st.sampled_from(["", "a", "b", "n" * 65]), max_size=3),
    groups=st.lists(st.sampled_from(["", "a", "g" * 65]), max_size=3),
)
column = st.lists(number, min_size=1, max_size=3)
panels = st.one_of(
    st.builds(pb.Panel, open=column, high=column, low=column, close=column, volume=column),
    st.builds(pb.Panel, close=column),
    st.builds(pb.Panel, high=column, low=column, close=column),
    st.just(pb.Panel(open=[2, 2], high=[3, 3], low=[1, 1], close=[2, 2], volume=[0, 9])),
)
specs = st.builds(
    pb.IndicatorSpec,
    name=st.sampled_from(["", "RSI", "x" * 32, "x" * 33]),
    params=st.dictionaries(st.sampled_from(["timeperiod", "k" * 33]), number, max_size=2),
    last=st.sampled_from([0, 1, 10_000, 10_001]),
)
indicators = st.builds(
    pb.ComputeIndicatorsRequest, panels=st.lists(panels, max_size=2), indicators=st.lists(specs, max_size=3)
)
text = st.sampled_from(["good", "", " \n", "\u00a0", "x" * 10_000, "x" * 10_001])
sentiments = st.builds(pb.AnalyzeSentimentRequest, texts=st.lists(text, max_size=3), model=st.just(""))
analyses = st.builds(pb.AnalyzeRequest, predict=predicts, sentiment=sentiments)
METHODS = {
    pb.PredictRequest: PREDICT,
    pb.ComputeIndicatorsRequest: INDICATORS,
    pb.AnalyzeSentimentRequest: SENTIMENT,
    pb.AnalyzeRequest: ANALYZE,
}


@given(message=st.one_of(predicts, indicators, sentiments, analyses))
def test_the_fast_check_accepts_only_requests_without_violations(message):
    if scratch.conforms(type(message), message.SerializeToString()):
        assert explain.check(message) == []


@given(message=st.one_of(predicts, indicators, sentiments, analyses))
def test_the_replica_gets_the_bytes_that_were_checked(message):
    method = METHODS[type(message)]
    try:
        checked = check(method, message.SerializeToString())
    except InvalidRequestError:
        with pytest.raises(InvalidRequestError):
            explain.check(message)
        return
    refused = explain.check(message)  # clears refused items
    assert [(r.list_name, r.index) for r in checked.refused] == [(r.list_name, r.index) for r in refused]
    assert method.request.FromString(checked.raw) == message


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (PREDICT, pb.PredictRequest(series=[pb.Series(values=GOOD)], horizon=5, quantiles=[0.1, 0.9])),
        (PREDICT, pb.PredictRequest(
            series=[pb.Series(values=GOOD, past_covariates=[math.nan] * 30, future_covariates=[math.nan] * 5)],
            horizon=5, covariates=["volume"], groups=["x"],
        )),
        (SENTIMENT, pb.AnalyzeSentimentRequest(texts=["good"])),
        (INDICATORS, pb.ComputeIndicatorsRequest(
            panels=[pb.Panel(open=[2, 2], high=[3, 3], low=[1, 1], close=[2, 2], volume=[0, 9])],
            indicators=[pb.IndicatorSpec(name="RSI", params={"timeperiod": 14})],
        )),
    ],
)  # fmt: skip
def test_a_valid_request_takes_the_fast_check_and_its_bytes_are_passed_on_unchanged(method, message, monkeypatch):
    monkeypatch.setattr(checking, "check_slowly", None)
    raw = message.SerializeToString()
    assert check(method, raw).raw is raw


def length_delimited(number: int, body: bytes) -> bytes:
    size = len(body)
    return bytes([number << 3 | 2, *([size & 0x7F | 0x80, size >> 7] if size > 0x7F else [size])]) + body


PACKED = struct.pack("<30d", *GOOD)
UNPACKED = b"".join(b"\x11" + PACKED[8 * i : 8 * i + 8] for i in range(30))
HALVES = length_delimited(2, PACKED[:120]) + length_delimited(2, PACKED[120:])


@pytest.mark.parametrize("inside", [UNPACKED, HALVES], ids=["one by one", "in two runs"])
def test_numbers_in_other_encodings_of_protobuf_are_kept(inside):
    raw = length_delimited(1, inside) + b"\x10\x05"
    checked = check(PREDICT, raw)
    np_values = twins.array(checked.message.series[0].values)
    assert np_values.tolist() == GOOD
    assert PREDICT.request.FromString(checked.raw) == PREDICT.request.FromString(raw)


def test_half_a_number_is_no_message():
    raw = length_delimited(1, length_delimited(2, PACKED[:-3])) + b"\x10\x05"
    with pytest.raises(InvalidRequestError, match="not a PredictRequest message"):
        check(PREDICT, raw)


def test_an_unknown_field_is_dropped():
    message = pb.PredictRequest(series=[pb.Series(values=GOOD)], horizon=5)
    checked = check(PREDICT, message.SerializeToString() + length_delimited(15, b"later"))
    assert checked.raw == message.SerializeToString()


def test_a_request_with_millions_of_empty_series_is_not_parsed_for_the_size_of_its_answer(monkeypatch):
    parsed = []

    monkeypatch.setattr(twins, "parse", lambda kind, raw: parsed.append(raw))
    with pytest.raises(InvalidRequestError):
        checking.read(PREDICT, b"\x0a\x00" * 4_000_000)
    assert parsed == []
    checking.read(PREDICT, b"small")
    assert parsed == [b"small"]
