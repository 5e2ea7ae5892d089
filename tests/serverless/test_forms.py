"""JSON to messages and back, for arbitrary JSON."""

import math

import numpy as np
import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from market_inference.contract.errors import InvalidRequestError
from market_inference.contract.generated import inference_pb2 as pb
from serverless import decode, encode, forms, watch

names = st.sampled_from(
    [
        "series",
        "symbol",
        "values",
        "horizon",
        "quantiles",
        "model",
        "time_series",
        "text",
        "texts",
        "ohlcv",
        "open",
        "close",
        "panels",
        "indicators",
        "name",
        "params",
        "last",
        "predict",
        "sentiment",
        "bars",
        "forecast",
    ]
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("\ud800") | st.just("RSI"),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(names, inside, max_size=4),
    max_leaves=15,
)
WAYS = {
    "predict": (forms.predict, pb.PredictRequest),
    "sentiment": (forms.sentiment, pb.AnalyzeSentimentRequest),
    "indicators": (forms.indicators, pb.ComputeIndicatorsRequest),
    "analyze": (forms.analyze, pb.AnalyzeRequest),
}


@given(st.sampled_from(sorted(WAYS)), st.dictionaries(names, anything, max_size=5))
def test_any_json_is_a_message_or_a_typed_error(action, body):
    expand, kind = WAYS[action]
    try:
        full, _ = expand(body)
        message = decode.message(kind, full)
    except InvalidRequestError as error:
        assert error.message
    else:
        assert isinstance(message, kind)


@given(st.dictionaries(st.sampled_from(["symbol", "ohlcv", "bars", "indicators", "forecast"]), anything))
def test_any_json_is_a_watch_or_a_typed_error(body):
    try:
        asked = watch.read(body)
        decode.message(pb.AnalyzeRequest, asked.body)
    except InvalidRequestError as error:
        assert error.message


finite = st.floats(allow_nan=False, allow_infinity=False)
bodies = st.fixed_dictionaries(
    {"horizon": st.integers(0, 2**32 - 1), "quantiles": st.lists(finite, max_size=5), "model": st.text(max_size=9)},
    optional={
        "series": st.lists(
            st.fixed_dictionaries(
                {"symbol": st.text(max_size=9), "values": st.lists(finite | st.integers(-(2**53), 2**53), max_size=9)}
            ),
            max_size=3,
        )
    },
)


@given(bodies)
def test_a_message_equals_protobufs_json_mapping(body):
    expected = json_format.ParseDict(body, pb.PredictRequest())
    assert decode.message(pb.PredictRequest, body) == expected


@given(bodies)
def test_a_message_survives_encoding_and_decoding(body):
    message = decode.message(pb.PredictRequest, body)
    assert decode.message(pb.PredictRequest, encode.to_json(message, {})) == message


def test_nan_is_null_and_enum_values_are_short_words():
    forecast = pb.Forecast(point=[1.0, math.nan, math.inf], coverage=pb.Coverage(nominal=0.8, measured=math.nan))
    found = encode.to_json(forecast, {})
    assert found["point"] == [1.0, None, None]
    assert found["coverage"] == {"nominal": 0.8, "measured": None, "origins": 0}
    sentiment = encode.to_json(pb.Sentiment(label=pb.SENTIMENT_LABEL_NEUTRAL, neutral=0.9), {})
    assert (sentiment["label"], sentiment["neutral"]) == ("neutral", 0.9), "a float is as short as it can be"
    assert np.float32(sentiment["neutral"]) == np.float32(0.9)


@pytest.mark.parametrize("value", [5, 5.0])
def test_a_whole_number_may_be_written_with_a_point(value):
    assert decode.message(pb.PredictRequest, {"horizon": value}).horizon == 5
