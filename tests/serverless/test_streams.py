"""Actions with several outputs, as a list and as a stream."""

import asyncio
import json

import numpy as np
import pytest
import talib

from market_inference.contract.generated import inference_pb2
from serverless.config import Config
from serverless.handler import Handler


@pytest.fixture
def streamed(runner, handler):
    """`streamed(action, **input)` returns all results of the generator handler as a list."""

    async def collect(job):
        return [result async for result in handler.stream(job)]

    def streamed(action, job_id="job-1", **given):
        return runner.run(collect({"id": job_id, "input": {"action": action, **given}}))

    return streamed


def test_predict_stream_has_no_groups(ask, closes):
    refused = ask("predict_stream", series=[{"values": closes}] * 2, horizon=2, groups=["x", "x"])
    assert refused["error"] == "groups are answered as a whole: ask with the action predict"


def test_predict_stream_yields_each_series_and_fails_each_alone(ask, streamed, closes):
    series = [
        {"symbol": "A", "values": closes},
        {"symbol": "B", "values": closes[:3]},
        {"symbol": "C", "values": closes},
    ]
    results = streamed("predict_stream", series=series, horizon=2)
    assert all(result["status"] == "success" for result in results)
    outputs = {result["output"]["index"]: result["output"] for result in results}
    assert set(outputs) == {0, 1, 2}
    assert outputs[1]["error"] == "series[1].values too short (min 30, got 3)"
    alone = ask("predict", time_series=closes, symbol="C", horizon=2)["output"]
    assert outputs[2]["symbol"] == "C"
    assert outputs[2]["forecast"] == alone["forecasts"][0]["forecast"]
    assert outputs[2]["quantile_levels"] == alone["quantile_levels"]


def test_a_streamed_action_returns_a_list_without_the_generator_handler(ask, closes):
    result = ask("predict_stream", series=[{"values": closes}, {"values": closes[1:]}], horizon=2)
    assert result["status"] == "success"
    assert sorted(output["index"] for output in result["output"]) == [0, 1]


def test_an_action_with_one_output_yields_one_result(ask, streamed, closes):
    (result,) = streamed("predict", time_series=closes, horizon=2)
    assert result == ask("predict", time_series=closes, horizon=2)


def test_watch_yields_the_full_calls_answer_per_bar(ask, streamed, ohlcv):
    history = {name: column[:100] for name, column in ohlcv.items()}
    bars = [{name: column[at] for name, column in ohlcv.items()} for at in range(100, 105)]
    results = streamed(
        "watch",
        symbol="ACME",
        ohlcv=history,
        bars=bars,
        indicators=["RSI"],
        forecast={"horizon": 1, "quantiles": [0.5]},
    )
    outputs = [result["output"] for result in results]
    assert [output["bar"] for output in outputs] == [0, 1, 2, 3, 4]
    rsi = [
        output["indicators"]["panels"][0]["indicators"]["indicators"][0]["outputs"][0]["values"] for output in outputs
    ]
    np.testing.assert_allclose(np.concatenate(rsi), talib.RSI(np.array(ohlcv["close"][:105]))[-5:], rtol=1e-12)
    full = ask("predict", time_series=ohlcv["close"][:103], horizon=1, quantiles=[0.5])["output"]
    assert outputs[2]["predict"]["forecasts"][0]["forecast"] == full["forecasts"][0]["forecast"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"bars": []}, "bars must be a list of bars, at least one"),
        ({"bars": [{"close": 1.0}]}, "bars[0] must be an object with the history's columns: open, high"),
        ({"ohlcv": {"close": [1.0]}, "bars": [{"close": 2.0}]}, "ohlcv.close too short (min 30, got 2)"),
        ({"indicators": None, "forecast": None}, "a watch needs indicators, a forecast, or both"),
        ({"forecast": {"horizon": 0}}, "forecast.horizon"),
        ({"colour": "red"}, "colour is not a field of watch"),
    ],
)
def test_an_error_of_a_watch_names_the_fields_of_the_callers_json(ask, ohlcv, change, error):
    bar = {name: column[-1] for name, column in ohlcv.items()}
    given = {"ohlcv": ohlcv, "bars": [bar], "indicators": ["RSI"], "forecast": {"horizon": 1}, **change}
    result = ask("watch", **given)
    assert error in result["error"]
    assert result["error_type"] == "validation"


def test_a_failed_part_of_a_watch_does_not_affect_the_other(ask, ohlcv):
    bar = {name: column[-1] for name, column in ohlcv.items()}
    (output,) = ask("watch", ohlcv=ohlcv, bars=[bar], indicators=["NOPE"], forecast={"horizon": 1})["output"]
    assert output["indicators_error"].startswith("indicators[0]: ")
    assert output["predict"]["forecasts"][0]["forecast"]["point"]


def test_an_error_ends_the_stream_with_a_whole_error_result(streamed):
    (only,) = streamed("predict", time_series=[1.0], horizon=2, request_id="r-1")
    assert set(only) == {"error"}, "the SDK keeps nothing else of an error in a stream"
    form = json.loads(only["error"])
    assert (form["error"], form["request_id"]) == ("time_series too short (min 30, got 1)", "r-1")


def test_closing_a_stream_cancels_the_remaining_series(runner, handler, closes, monkeypatch):
    servicer = runner.run(handler.worker()).parts.servicer
    predict, cancelled = servicer.predict, []

    async def only_the_first_is_ready(raw, call):
        request = inference_pb2.PredictRequest.FromString(raw)
        if request.series[0].symbol == "first":
            return await predict(raw, call)
        try:
            return await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(request.series[0].symbol)
            raise

    async def leave():
        series = [{"symbol": symbol, "values": closes} for symbol in ("a", "first", "b")]
        job = {"id": "j", "input": {"action": "predict_stream", "series": series, "horizon": 3}}
        before = asyncio.all_tasks()
        results = handler.stream(job)
        assert (await anext(results))["output"]["symbol"] == "first"
        await results.aclose()
        await asyncio.gather(*(asyncio.all_tasks() - before), return_exceptions=True)

    monkeypatch.setattr(servicer, "predict", only_the_first_is_ready)
    runner.run(leave())
    assert sorted(cancelled) == ["a", "b"]
    assert handler.in_flight == 0


def test_an_aggregated_stream_ends_with_an_error_at_the_platforms_limit(runner, handler, closes, monkeypatch):
    monkeypatch.setattr("serverless.limits.RUN_BYTES", 100_000)
    aggregated = Handler(Config(streaming="aggregated"), handler._service)
    aggregated._worker = handler._worker

    async def collect(job_id):
        given = {"action": "predict_stream", "series": [{"values": closes}] * 50, "horizon": 20}
        return [result async for result in aggregated.stream({"id": job_id, "input": given})]

    *results, last = runner.run(collect("job"))
    assert 0 < len(results) < 50
    assert json.loads(last["error"])["error_type"] == "runtime"
    assert "too large" in last["error"]
    assert len(runner.run(collect("sync-job"))) == 50, "the limit of /runsync is another one"
