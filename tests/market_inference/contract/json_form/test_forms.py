"""JSON to messages and back, for arbitrary JSON."""

import math
import re
import tracemalloc

import numpy as np
import orjson
import pytest
from google.protobuf import json_format
from google.rpc import status_pb2
from hypothesis import given
from hypothesis import strategies as st

from market_inference.contract.errors import InvalidRequestError
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.json_form import decode, encode, forms, mistakes
from serverless import watch

names = st.sampled_from(
    [
        "series",
        "symbol",
        "values",
        "horizon",
        "quantiles",
        "model",
        "time_series",
        "past_covariates",
        "future_covariates",
        "covariates",
        "groups",
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
    assert found["coverage"] == {
        "nominal": 0.8, "measured": None, "origins": 0, "phase_measured": [], "phase_origins": [],
            "phase_ahead": [],
    }  # fmt: skip
    sentiment = encode.to_json(pb.Sentiment(label=pb.SENTIMENT_LABEL_NEUTRAL, neutral=0.9), {})
    assert (sentiment["label"], sentiment["neutral"]) == ("neutral", 0.9), "a float is as short as it can be"
    assert np.float32(sentiment["neutral"]) == np.float32(0.9)


def many_values() -> pb.AnalyzeResponse:
    """Some hundred KiB: a failed part, empty lists, short and long lists, NaN, words and warnings."""
    values = np.random.default_rng(7).normal(size=9000)
    values[[0, 4095, 4096, -1]] = math.nan
    outputs = [pb.IndicatorOutput(name="a", values=values[:length]) for length in (0, 1, 4096, 8192, 9000)]
    panels = [pb.PanelIndicators(symbol="ü", indicators=pb.IndicatorSet(indicators=[pb.Indicator(outputs=outputs)]))]
    panels += [
        pb.PanelIndicators(symbol="b", error=status_pb2.Status(code=3, message="too short")),
        pb.PanelIndicators(),
    ]
    forecast = pb.Forecast(
        point=values, warnings=[pb.AnswerWarning(message="w", evidence=[pb.Evidence(values=[1, 2])])]
    )
    return pb.AnalyzeResponse(
        predict=pb.PredictResponse(forecasts=[pb.SeriesForecast(forecast=forecast)]),
        indicators=pb.ComputeIndicatorsResponse(panels=panels),
    )


def test_the_pieces_of_a_text_are_the_text_of_the_whole():
    message = many_values()
    pieces = list(encode.texts(message, {}, orjson.dumps))
    assert max(map(len, pieces)) < 4096 * 25
    assert b"".join(pieces) == orjson.dumps(encode.to_json(message, {}))
    assert b"".join(encode.texts(pb.PanelIndicators(), {}, orjson.dumps)) == b'{"symbol":""}'


@pytest.mark.parametrize("value", [5, 5.0])
def test_a_whole_number_may_be_written_with_a_point(value):
    assert decode.message(pb.PredictRequest, {"horizon": value}).horizon == 5


MEGABYTE = "x" * (1 << 20)
REFUSED = [
    ("sentiment", {"text": "x", "about": ["A"] * 101}, "about", "too long (max 100, got 101)"),
    ("sentiment", {"text": MEGABYTE, "about": ["A"] * 100_000}, "about", "too long (max 100, got 100000)"),
    ("sentiment", {"text": MEGABYTE, "about": ["A"] * 100}, "text", "too long (max 10000 characters, got 1048576)"),
    ("sentiment", {"texts": ["x"] * 101}, "texts", "too long (max 100, got 101)"),
    ("analyze", {"sentiment": {"text": "x", "about": ["A"] * 101}}, "sentiment.about", "too long (max 100, got 101)"),
    ("analyze", {"indicators": {"ohlcv": []}}, "indicators.ohlcv", "must be an object of columns"),
    ("indicators", {"indicators": ["RSI", "SMA:5"]}, "indicators[1]", "must be NAME or NAME:parameter=number"),
    ("indicators", {"indicators": ["SMA:timeperiod=nan"]}, "indicators[0]", "must be NAME or NAME:parameter=number"),
    ("indicators", {"indicators": ["SMA:"]}, "indicators[0]", "must be NAME or NAME:parameter=number"),
    ("predict", {"series": []}, "horizon", "is missing: the number of steps ahead, from 1 to 365"),
    ("predict", {"time_series": [1], "horizon": None}, "horizon", "is missing"),
    ("analyze", {"predict": {"time_series": [1]}}, "predict.horizon", "is missing"),
    ("indicators", {"indicators": ["RSI"] * 101}, "indicators", "too long (max 100, got 101)"),
    ("indicators", {"panels": [{}] * 65}, "panels", "too long (max 64, got 65)"),
    ("predict", {"series": [{}] * 257}, "series", "too long (max 256, got 257)"),
    # Before the times or covariates of any are looked at.
    ("predict", {"series": [{"times": ["no time"]}] * 257}, "series", "too long (max 256, got 257)"),
    (
        "predict",
        {"series": [{"past_covariates": dict.fromkeys(map(str, range(17)), "no list")}]},
        "series[0].past_covariates",
        "too long (max 16, got 17)",
    ),
]


@pytest.mark.parametrize(("action", "body", "field", "words"), REFUSED)
def test_a_list_above_its_limit_is_refused_before_its_elements_are_made(action, body, field, words):
    expand, kind = WAYS[action]
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequestError) as caught:
            full, _ = expand(body)
            decode.message(kind, full)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    [broken] = caught.value.violations
    assert broken.field == field
    assert broken.description.startswith(words)
    assert most < 100_000


def test_the_lists_of_the_contract_have_the_limit_that_the_form_reads():
    full, _ = forms.sentiment({"text": "x", "about": ["A"] * 100})
    assert len(decode.message(pb.AnalyzeSentimentRequest, full).texts) == 100


@pytest.mark.parametrize("wrong", ["x", None, True, 10**400])
def test_a_wrong_value_deep_in_a_column_is_named_by_its_place(wrong):
    values = [1.0] * 40_000 + [wrong]
    with pytest.raises(InvalidRequestError) as caught:
        decode.message(pb.Series, {"values": values})
    assert caught.value.violations[0].field == "values[40000]"


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        (pb.PredictRequest, {"horizon": "5"}, "horizon: must be a whole number from 1 to 365 (got a string)"),
        (pb.PredictRequest, {"horizon": True}, "horizon: must be a whole number from 1 to 365 (got true or false)"),
        (pb.PredictRequest, {"period": -1}, "period: must be a whole number from 0 to 1440 (got -1)"),
        (
            pb.Series,
            {"values": [1, None]},
            "values[1]: must be a number (got null): fill a missing value, or leave its",
        ),
        (pb.IndicatorSpec, {"params": {"n": None}}, "params.n: must be a number (got null)"),
    ],
)
def test_a_wrong_value_is_told_with_the_limits_of_the_contract(kind, body, words):
    with pytest.raises(InvalidRequestError, match=re.escape(words)):
        decode.message(kind, body)


def predicted(body):
    return decode.message(pb.PredictRequest, forms.predict(body)[0])


def test_covariates_by_name_become_rows_and_null_is_a_missing_value():
    body = {
        "time_series": [1, 2, 3],
        "symbol": "A",
        "horizon": 2.0,
        "past_covariates": {"volume": [10, None, 30], "holiday": [0, 0, 1]},
        "future_covariates": {"holiday": [1, 0]},
    }
    found = predicted(body)
    assert list(found.covariates) == ["volume", "holiday"]
    (one,) = found.series
    np.testing.assert_array_equal(one.past_covariates, [10, math.nan, 30, 0, 0, 1])
    np.testing.assert_array_equal(one.future_covariates, [math.nan, math.nan, 1, 0])


def test_covariates_by_name_stand_beside_series_without_any():
    named = {"values": [1, 2], "past_covariates": {"b": [3, 4], "a": [5, 6]}}
    other = {"values": [1, 2], "past_covariates": {"a": [7, 8], "b": [9, 0]}}
    found = predicted({"series": [{"values": [1, 2]}, named, other], "horizon": 2, "groups": ["x", "x", ""]})
    assert [list(one.past_covariates) for one in found.series] == [[], [3, 4, 5, 6], [9, 0, 7, 8]]
    assert list(found.groups) == ["x", "x", ""]


def test_the_rows_of_the_contract_are_taken_as_they_are():
    body = {"series": [{"values": [1, 2], "past_covariates": [3, 4]}], "covariates": ["a"], "horizon": 1}
    assert forms.predict(body)[0] == body


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"past_covariates": {"v": [1]}}, r"^past_covariates.v: must be as many as values of the series \(2, got 1\)"),
        ({"past_covariates": {"v": 1}}, "^past_covariates.v: must be a list of numbers"),
        ({"past_covariates": {"v": [1, "2"]}}, r"^past_covariates.v\[1\]: must be a number, or null"),
        ({"past_covariates": {"v": [1, True]}}, r"^past_covariates.v\[1\]: must be a number, or null"),
        ({"future_covariates": {"v": [1]}}, "^future_covariates.v: has no past"),
        (
            {"past_covariates": {"v": [1, 2]}, "future_covariates": {"v": [1, 2]}},
            r"^future_covariates.v: must be as many as steps ahead \(1, got 2\)",
        ),
        ({"past_covariates": {"v": [1, 2]}, "covariates": ["v"]}, "^covariates: are named in past_covariates"),
        (
            {"past_covariates": {str(at): [1, 2] for at in range(17)}},
            r"^past_covariates: too long \(max 16, got 17\)",
        ),
    ],
)
def test_a_mistake_in_covariates_is_named_as_the_caller_wrote_it(change, text):
    with pytest.raises(InvalidRequestError, match=text):
        predicted({"time_series": [1, 2], "horizon": 1, **change})


def test_all_series_with_covariates_have_the_same():
    series = [{"values": [1, 2], "past_covariates": {name: [1, 2]}} for name in "ab"]
    with pytest.raises(InvalidRequestError, match=r"^series\[1\].past_covariates: must have the names of the first"):
        predicted({"series": series, "horizon": 1})


def test_a_horizon_beyond_the_contract_multiplies_nothing():
    body = {"time_series": [1, 2], "horizon": 10**9, "past_covariates": {"v": [1, 2], "w": [1, 2]}}
    tracemalloc.start()
    try:
        forms.predict(body | {"future_covariates": {"v": [1]}})
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_times_are_texts_or_nanoseconds():
    texts = ["2026-01-01T09:30:00Z", "2026-01-01T12:00:00+02:00", "2026-01-01 10:30"]
    expected = [1_767_259_800 * 10**9, 1_767_261_600 * 10**9, 1_767_263_400 * 10**9]
    assert list(predicted({"time_series": [1, 2, 3], "times": texts, "horizon": 1}).series[0].times) == expected
    assert list(predicted({"series": [{"values": [1], "times": expected}], "horizon": 1}).series[0].times) == expected
    with pytest.raises(InvalidRequestError, match=r"^times\[1\]: must be a time in ISO 8601"):
        predicted({"time_series": [1, 2], "times": [texts[0], "noon"]})
    with pytest.raises(InvalidRequestError, match=r"^series\[0\].times\[0\]: must be a whole number from -9"):
        predicted({"series": [{"values": [1], "times": [1.5]}], "horizon": 1})


@pytest.mark.parametrize(
    "short",
    [
        {"time_series": [1, 2.5], "symbol": "A"},
        {"values": [1, 2.5], "symbol": "A"},
        {"series": [1, 2.5], "symbol": "A"},
        {"series": [{"symbol": "A", "values": [1, 2.5]}]},
    ],
)
def test_one_series_may_be_written_plainly(short):
    expected = pb.PredictRequest(horizon=3, series=[pb.Series(symbol="A", values=[1, 2.5])])
    assert predicted(short | {"horizon": 3}) == expected
    times = ["2026-01-01", "2026-01-02"]
    if "symbol" in short:
        assert len(predicted(short | {"horizon": 3, "times": times}).series[0].times) == 2


def test_lists_of_values_are_series_beside_others():
    found = predicted({"series": [[1, 2], {"symbol": "B", "values": [3]}, []], "horizon": 1})
    assert [(one.symbol, list(one.values)) for one in found.series] == [("", [1, 2]), ("B", [3]), ("", [])]


def test_the_columns_of_one_panel_may_stand_beside_the_indicators():
    expanded, _ = forms.indicators({"close": [1, 2], "high": [3, 4], "symbol": "A", "indicators": ["RSI"]})
    [panel] = decode.message(pb.ComputeIndicatorsRequest, expanded).panels
    assert panel == pb.Panel(symbol="A", close=[1, 2], high=[3, 4])


@pytest.mark.parametrize(
    ("action", "body", "field"),
    [
        ("predict", {"series": [1, "x"], "horizon": 1}, "series[1]"),
        ("predict", {"series": [1, [2]], "horizon": 1}, "series[1]"),
        ("predict", {"series": [[1], [2, "x"]], "horizon": 1}, "series[1][1]"),
        ("predict", {"series": [[1], 2], "horizon": 1}, "series[1]"),
        ("predict", {"series": [True], "horizon": 1}, "series[0]"),
        ("predict", {"series": {}, "horizon": 1}, "series"),
        ("predict", {"values": [1, None], "horizon": 1}, "values[1]"),
        ("predict", {"series": [[1]] * 257, "horizon": 1}, "series"),
        ("predict", {"series": [1], "symbol": 5, "horizon": 1}, "symbol"),
        ("predict", {"values": [1], "time_series": [1], "horizon": 1}, "time_series"),
        ("predict", {"values": [1], "series": [1], "horizon": 1}, "values"),
        ("predict", {"time_series": [1], "series": [{}], "horizon": 1}, "time_series"),
        ("indicators", {"close": ["x"], "indicators": ["RSI"]}, "close[0]"),
        ("indicators", {"close": [1], "ohlcv": {}, "indicators": ["RSI"]}, "close"),
        ("indicators", {"close": [1], "panels": [], "indicators": ["RSI"]}, "close"),
    ],
)
def test_a_mistake_in_a_plain_form_is_named_as_the_caller_wrote_it(action, body, field):
    expand, kind = WAYS[action]
    with pytest.raises(InvalidRequestError) as caught:
        full, names = expand(body)
        decode.message(kind, full)
    [broken] = caught.value.violations
    assert broken.field == field or mistakes.renamed(broken.field, names) == field


def test_an_indicator_may_be_a_text_with_parameters():
    body = {
        "ohlcv": {"close": [1]},
        "indicators": ["RSI", "SMA:timeperiod=5", " MACD : fastperiod=8 , slowperiod = 20"],
    }
    expanded, names = forms.indicators(body)
    found = [(one.name, dict(one.params)) for one in decode.message(pb.ComputeIndicatorsRequest, expanded).indicators]
    assert found == [("RSI", {}), ("SMA", {"timeperiod": 5}), ("MACD", {"fastperiod": 8, "slowperiod": 20})]
    assert names["indicators[1].name"] == "indicators[1]"


@pytest.mark.parametrize(
    ("action", "body", "field", "words"),
    [
        ("predict", {"horizn": 5}, "horizn", "there are: series, horizon, quantiles"),
        ("predict", {"symbl": "A"}, "symbl", "time_series, values, symbol, past_covariates, future_covariates, times"),
        ("predict", {"prices": [1, 2]}, "prices", 'an example: {"time_series": [101, 102, 103], "horizon": 5}'),
        ("sentiment", {"txt": "x"}, "txt", ", text"),
        ("indicators", {"ohlc": {}}, "ohlc", ", ohlcv, symbol"),
        ("analyze", {"predict": {"horizn": 5}}, "predict.horizn", ", time_series"),
    ],
)
def test_an_unknown_name_is_told_with_those_of_the_short_form(action, body, field, words):
    with pytest.raises(InvalidRequestError) as caught:
        WAYS[action][0](body)
    [broken] = caught.value.violations
    assert broken.field == field
    assert broken.description.startswith("is not a field; there are: ")
    assert words in broken.description
