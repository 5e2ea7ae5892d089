"""A request is read through its twin only when the twin holds every byte."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_inference.contract.encoding import twins
from market_inference.contract.generated import inference_pb2 as pb

values = st.lists(st.floats(), max_size=10)
series = st.builds(
    pb.Series,
    symbol=st.text(max_size=5),
    values=values,
    past_covariates=values,
    future_covariates=values,
    times=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
)
requests = st.builds(
    pb.PredictRequest, series=st.lists(series, max_size=3), horizon=st.integers(0, 9), quantiles=values, model=st.text()
)


@given(requests)
def test_a_twin_has_the_content_of_the_request(message):
    raw = message.SerializeToString()
    twin = twins.read(pb.PredictRequest, raw)
    assert twin is not None
    assert twin.SerializeToString() == raw
    for item, public in zip(twin.series, message.series, strict=True):
        np.testing.assert_array_equal(twins.array(item.values), public.values)
        np.testing.assert_array_equal(twins.array(item.past_covariates), public.past_covariates)
        np.testing.assert_array_equal(twins.array(item.future_covariates), public.future_covariates)
        np.testing.assert_array_equal(twins.array(item.times).view(np.int64), public.times)


@st.composite
def parts_of_all_kinds(draw):
    """Messages with items, singular messages, scalars, strings, lists of each, and a map."""
    predict = draw(requests)
    kind = draw(st.sampled_from(["predict", "sentiment", "indicators", "analyze", "stream"]))
    if kind == "predict":
        return predict
    texts = draw(st.lists(st.text(max_size=200), max_size=3))
    sentiment = pb.AnalyzeSentimentRequest(texts=texts, model=draw(st.text()))
    if kind == "sentiment":
        return sentiment
    indicators = pb.ComputeIndicatorsRequest(panels=[pb.Panel(close=draw(values), symbol="A")])
    indicators.indicators.add(name="RSI", params={"timeperiod": 3.0}, last=1)
    if kind == "indicators":
        return indicators
    if kind == "analyze":
        return pb.AnalyzeRequest(predict=predict, sentiment=sentiment, indicators=indicators)
    return pb.StreamRequest(requests=[pb.StreamItem(id=1, predict=predict), pb.StreamItem(id=2, cancel={})])


@given(parts_of_all_kinds(), st.binary(max_size=20))
def test_a_large_message_that_is_measured_in_parts_is_read_as_a_small_one(message, more):
    kind, raw = type(message), message.SerializeToString()
    for content in (raw, raw + more):
        whole = twins.read(kind, content)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(twins, "_LARGE_BYTES", 1)
            assert twins.read(kind, content) == whole
    assert whole is not None or more
    assert twins.read(kind, raw) is not None


def test_a_request_of_megabytes_is_read_through_its_twin_unless_a_byte_would_be_lost():
    one = pb.Series(values=np.arange(10_000.0), symbol="A")
    raw = pb.PredictRequest(series=[one] * 20, horizon=3).SerializeToString()
    assert twins.read(pb.PredictRequest, raw) is not None
    assert twins.read(pb.PredictRequest, raw + b"\x7a\x01x") is None
    assert twins.read(pb.PredictRequest, b"\x0a\x09\x11" + bytes(8) + raw) is None


@given(requests, st.binary(max_size=20))
def test_bytes_that_a_twin_would_lose_are_not_read_through_it(message, more):
    raw = message.SerializeToString() + more
    twin = twins.read(pb.PredictRequest, raw)
    if twin is not None:
        assert pb.PredictRequest.FromString(twin.SerializeToString()) == pb.PredictRequest.FromString(raw)


@pytest.mark.parametrize(
    "raw", [b"\x0a\x02\x11", b"\x0a\x09\x11" + bytes(8), b"\x7a\x01x"], ids=["truncated", "unpacked", "unknown field"]
)
def test_other_encodings_are_left_to_the_parser(raw):
    assert twins.read(pb.PredictRequest, raw) is None


def test_a_rewritten_request_is_read_through_its_twin():
    unpacked = b"\x0a\x09\x11" + bytes(8)
    whole = twins.rewrite(pb.PredictRequest.FromString(unpacked))
    twin = twins.read(pb.PredictRequest, whole)
    assert twins.array(twin.series[0].values).tolist() == [0.0]


def test_a_column_is_not_copied_and_not_writable():
    column = np.arange(3.0).tobytes()
    array = twins.array(column)
    assert not array.flags.writeable
    assert array.base is not None
    with pytest.raises(ValueError, match="buffer size"):
        twins.array(column[:-1])
