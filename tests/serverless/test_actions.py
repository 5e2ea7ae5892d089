"""Every action of the worker, against the real servicer."""

import json

import numpy as np
import pytest
import talib

DEEP = json.loads('{"a":' * 900 + "1" + "}" * 900)


def output(result):
    json.dumps(result, allow_nan=False)
    assert result["status"] == "success", result
    assert set(result) == {"status", "output", "request_id"}
    return result["output"]


def test_predict_takes_a_time_series(ask, closes):
    found = output(ask("predict", symbol="ACME", time_series=closes, horizon=5, quantiles=[0.1, 0.5, 0.9]))
    (entry,) = found["forecasts"]
    assert entry["symbol"] == "ACME"
    assert found["quantile_levels"] == [0.1, 0.5, 0.9]
    paths = np.array(entry["forecast"]["quantiles"]).reshape(5, 3)
    assert (np.diff(paths, axis=1) >= 0).all()
    assert entry["forecast"]["point"] == paths[:, 1].tolist()


def test_the_short_form_gets_the_answer_of_the_full_one(ask, closes):
    short = output(ask("predict", symbol="ACME", time_series=closes, horizon=5))
    full = output(ask("predict", series=[{"symbol": "ACME", "values": closes}], horizon=5))
    assert short == full


def test_a_bad_series_fails_alone(ask, closes):
    found = output(ask("predict", series=[{"values": closes}, {"values": [1.0, 2.0]}], horizon=2))
    assert len(found["forecasts"][0]["forecast"]["point"]) == 2
    bad = found["forecasts"][1]
    assert (bad["error"], bad["error_type"]) == ("series[1].values too short (min 30, got 2)", "validation")


def test_sentiment_takes_a_text_or_texts(ask):
    texts = ["Profit rose sharply and beat expectations.", "Shares plunged after a profit warning."]
    found = output(ask("sentiment", texts=texts))["sentiments"]
    assert [one["sentiment"]["label"] for one in found] == ["positive", "negative"]
    assert found[0]["sentiment"]["score"] > 0 > found[1]["sentiment"]["score"]
    assert output(ask("sentiment", text=texts[0]))["sentiments"][0]["sentiment"]["label"] == "positive"


def test_answers_carry_their_warnings(ask, closes):
    (text,) = output(ask("sentiment", text="Der Gewinn ist im dritten Quartal gefallen"))["sentiments"]
    (warning,) = text["sentiment"]["warnings"]
    assert warning["code"] == "text_not_english"
    assert "German" in warning["message"]
    halted = closes[:60] + [closes[60]] * 20
    (series,) = output(ask("predict", time_series=halted, horizon=1))["forecasts"]
    assert [one["code"] for one in series["forecast"]["warnings"]] == ["stale_tail"]
    assert series["forecast"]["warnings"][0]["evidence"] == [{"name": "bars", "values": [20.0]}]


def test_a_period_gives_the_coverage_by_phase_and_is_refused_where_a_model_takes_none(ask, closes):
    (series,) = output(ask("predict", time_series=closes, horizon=3, period=6))["forecasts"]
    coverage = series["forecast"]["coverage"]
    assert len(coverage["phase_measured"]) == len(coverage["phase_origins"]) == 6
    assert sum(coverage["phase_origins"]) == len(closes) - 30
    (plain,) = output(ask("predict", time_series=closes, horizon=3))["forecasts"]
    assert plain["forecast"]["coverage"]["phase_measured"] == []
    refused = ask("predict", time_series=closes, horizon=3, period=6, model="vol_rw")
    expected = "period: model vol_rw takes no period; auto does"
    assert (refused["error_type"], refused["error"]) == ("validation", expected)
    assert "period" in ask("predict", time_series=closes, horizon=3, period=1441)["error"]


def test_covariates_and_groups_are_refused_by_name_where_a_model_takes_none(ask, closes):
    beside = {"volume": [None, *closes[1:]]}
    refused = ask("predict", time_series=closes, horizon=3, past_covariates=beside)
    expected = "past_covariates: model auto takes no covariates; chronos_2 does"
    assert (refused["error_type"], refused["error"]) == ("validation", expected)
    series = [{"values": closes}, {"values": closes}]
    refused = ask("predict", series=series, horizon=3, groups=["x", "x"])
    assert refused["error"] == "groups: model auto takes no groups; chronos_2 does"
    takes = {model["name"]: model["takes"] for model in output(ask("models"))["models"]}
    assert takes["auto"] == ["period", "times"]


def test_a_text_is_judged_towards_each_company(ask):
    text = "Apple shares plunge after a profit warning, while Microsoft profit rises sharply"
    found = output(ask("sentiment", text=text, about=["Apple", "microsoft"]))["sentiments"]
    assert [one["sentiment"]["label"] for one in found] == ["negative", "positive"]
    (one, other) = output(ask("sentiment", text=text, about=["Apple", "Nokia"]))["sentiments"]
    assert one["sentiment"]["label"] == "negative"
    assert other["error"] == "about[1] is not named in the text: give the name as the text has it"
    refused = ask("sentiment", text=text, about="Nokia")
    assert (refused["error_type"], refused["error"].partition(" is")[0]) == ("validation", "about")
    assert "as many values as texts" in ask("sentiment", texts=[text, text], about=["Apple"])["error"]


def test_indicators_take_ohlcv_and_names(ask, ohlcv):
    found = output(ask("indicators", ohlcv=ohlcv, indicators=["RSI", {"name": "SMA", "params": {"timeperiod": 5}}]))
    rsi, sma = found["panels"][0]["indicators"]["indicators"]
    close = np.array(ohlcv["close"])
    for got, expected in ((rsi, talib.RSI(close)), (sma, talib.SMA(close, 5))):
        values = got["outputs"][0]["values"]
        np.testing.assert_allclose(np.array(values, dtype=float), expected, rtol=1e-12)
        assert [value is None for value in values] == np.isnan(expected).tolist(), "warm-up values are null"


def test_analyze_answers_each_part_and_fails_each_alone(ask, closes, ohlcv):
    found = output(
        ask(
            "analyze",
            predict={"time_series": closes, "horizon": 3, "model": "no-such-model"},
            sentiment={"text": "Shares fell."},
            indicators={"ohlcv": ohlcv, "indicators": [{"name": "ATR", "last": 1}]},
        )
    )
    assert found["predict_error_type"] == "validation"
    assert "no-such-model" in found["predict_error"]
    assert found["sentiment"]["sentiments"][0]["sentiment"]["label"] == "negative"
    assert len(found["indicators"]["panels"][0]["indicators"]["indicators"][0]["outputs"][0]["values"]) == 1


def test_health_reports_each_engines_answer_to_a_real_input(ask):
    found = output(ask("health", request_id="mine"))
    assert found["status"] == "healthy"
    assert found["request_id"] == "mine"
    assert set(found["gpu"]) == {
        "available",
        "device_count",
        "device_name",
        "memory_allocated_mb",
        "memory_reserved_mb",
    }
    assert set(found["models"]) == {"forecast", "sentiment", "indicators"}
    assert all(engine["loaded"] and engine["test"] == "passed" for engine in found["models"].values())
    assert found["timestamp"].startswith("20")


def test_models_lists_the_default_of_every_engine(ask):
    defaults = {model["engine"]: model for model in output(ask("models"))["models"] if model["is_default"]}
    assert set(defaults) == {"forecast", "sentiment", "indicators"}
    assert defaults["forecast"]["state"] == "ready"


@pytest.mark.parametrize(
    ("action", "given", "error", "error_type"),
    [
        ("predict", {"time_series": [1, 2], "horizon": 3}, "time_series too short (min 30, got 2)", "validation"),
        (
            "predict",
            {"time_series": [1.0] * 29 + ["x"], "horizon": 3},
            "time_series[29] must be a number",
            "validation",
        ),
        ("predict", {"time_series": [True] * 30, "horizon": 3}, "time_series[0] must be a number", "validation"),
        (
            "predict",
            {"time_series": [10**400] * 30, "horizon": 3},
            "time_series[0] must be a whole number of 64",
            "validation",
        ),
        (
            "predict",
            {"time_series": [1.0] * 30, "horizon": 10**30},
            "horizon must be a whole number of 64 bits",
            "validation",
        ),
        ("train", {"recipe": {"base": DEEP}, "dataset": "x"}, "recipe.base.a.a.a.a", "validation"),
        ("train", {"recipe": {"base": DEEP}, "dataset": "x"}, "nested deeper than 254 levels", "validation"),
        ("train", {"recipe": {"\udfff": 1}, "dataset": "x"}, "recipe must not hold half a surrogate", "validation"),
        (
            "predict",
            {"time_series": [1.0] * 29 + [float("nan")], "horizon": 3},
            "time_series[29] must be a",
            "validation",
        ),
        ("predict", {"time_series": "1,2", "horizon": 3}, "time_series must be a list (got a string)", "validation"),
        ("predict", {"time_series": [1.0] * 30, "horizon": -1}, "horizon must be a whole number from 1", "validation"),
        ("predict", {"time_series": [1.0] * 30, "horizon": 366}, "horizon", "validation"),
        (
            "predict",
            {"time_series": [1.0] * 30, "series": [], "horizon": 1},
            "time_series is a short form",
            "validation",
        ),
        ("predict", {"time_series": [1.0] * 30, "horizn": 1}, "horizn is not a field; there are: series", "validation"),
        ("sentiment", {"texts": ["a"] * 101}, "texts too long (max 100, got 101)", "validation"),
        ("sentiment", {"text": " "}, "text must not be empty or blank", "validation"),
        ("sentiment", {"texts": ["a", "\ud800"]}, "texts[1] must not hold half a surrogate pair", "validation"),
        ("indicators", {"ohlcv": {"close": [1.0] * 5}, "indicators": ["NOPE"]}, "indicators[0]: ", "validation"),
        ("indicators", {"ohlcv": {"close": [1.0] * 5}, "indicators": ["ATR"]}, "ohlcv.high is empty", "validation"),
        (
            "indicators",
            {"ohlcv": {"close": [1.0], "high": [1.0, 2.0]}, "indicators": ["RSI"]},
            "ohlcv.high",
            "validation",
        ),
        ("analyze", {"predict": {"time_series": [1], "horizon": 1}}, "predict.time_series too short", "validation"),
        ("health", {"what": 1}, "what is not a field", "validation"),
        (
            "predict",
            {"time_series": [1.0] * 30, "horizon": 1, "timeout": 0},
            "timeout must be a number of",
            "validation",
        ),
        ("buy", {}, "unknown action 'buy'; there are: predict", "invalid_action"),
        ("", {}, "no action given; there are: predict", "invalid_action"),
    ],
)
def test_an_error_names_the_fields_of_the_callers_json(ask, action, given, error, error_type):
    result = ask(action, request_id="r-1", **given)
    assert set(result) == {"status", "error", "error_type", "request_id", "timestamp"}
    assert result["status"] == "error"
    assert error in result["error"]
    assert (result["error_type"], result["request_id"]) == (error_type, "r-1")


def test_the_request_id_is_the_inputs_or_the_jobs_or_new(ask, runner, handler):
    assert ask("models", request_id="mine")["request_id"] == "mine"
    assert ask("models", job_id="sync-7")["request_id"] == "sync-7"
    assert ask("models", job_id="sync-7", request_id="bad id\n")["request_id"] == "sync-7"
    assert len(runner.run(handler({"input": {"action": "models"}}))["request_id"]) == 36


def test_an_input_other_than_an_object_is_refused(runner, handler):
    result = runner.run(handler({"id": "j", "input": [1]}))
    assert (result["error"], result["error_type"]) == ("input must be an object", "validation")
