"""Wrong answers of a service on a real socket: each is refused with the field, and never a value of a user."""

import asyncio
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

from market_inference import AsyncClient, Client, errors
from market_inference.client import checks
from market_inference.client.session import ForecastEvery
from market_inference.client.watch import AsyncWatch, Watch
from market_inference.contract.generated import answers_pb2
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.generated.inference_pb2_grpc import (
    MarketInferenceServiceServicer,
    add_MarketInferenceServiceServicer_to_server,
)
from tests.market_inference import conftest
from tests.market_inference.client.test_lane import answer as stream_answer
from tests.market_inference.client.test_lane import service_with_streams

CLOSES = np.linspace(100, 139, 40)
UNIVERSE = {"A": CLOSES, "B": CLOSES + 1, "C": CLOSES + 2}
SPECS = ["RSI", "MACD", {"name": "SMA", "last": 5}]
TEXTS = {"A": "shares up", "B": "shares down", "C": "shares up again"}


def refuses(call: Callable[[], Any], match: str) -> errors.InternalError:
    with pytest.raises(errors.InternalError, match=match) as raised:
        call()
    assert raised.value.reason == errors.WRONG_ANSWER
    assert raised.value.request_id
    ((field, text),) = raised.value.violations
    assert f"{field}: {text}" in str(raised.value)
    return raised.value


def timed(found: pb.Forecast) -> None:
    """The coverage by phase of a cycle of three values."""
    coverage = found.coverage
    coverage.phase_measured.extend([0.5, math.nan, 1.0])
    coverage.phase_origins.extend([4, 0, 2])
    coverage.phase_ahead.extend([1, 2])


def put(field: str, at: int, value: float) -> Callable[[pb.Forecast], None]:
    def change(found: pb.Forecast) -> None:
        getattr(found, field)[at] = value

    return change


def with_coverage(**fields: Any) -> Callable[[pb.Forecast], None]:
    return lambda found: found.coverage.MergeFrom(pb.Coverage(**fields))


FORECASTS: dict[str, tuple[Callable[[pb.Forecast], Any], str]] = {
    "horizon": (lambda found: found.point.append(1.0), r"forecast\.point: expected 2 values, got 3"),
    "levels": (lambda found: found.quantiles.append(1.0), r"quantiles: expected 2 steps of 9 levels, got 19 values"),
    "empty": (lambda found: found.Clear(), r"point: expected 2 values, got 0"),
    "nan": (put("point", 1, math.nan), r"point: expected finite numbers, got nan at step 2"),
    "infinite": (put("quantiles", 17, math.inf), r"quantiles: expected finite numbers, got inf at step 2, level 0\.9"),
    "nan quantile": (put("quantiles", 9, math.nan), r"got nan at step 2, level 0\.1"),
    "crossed": (put("quantiles", 1, 150.0), r"ascending levels, got 150 at level 0\.2 and .* at level 0\.3 at step 1"),
    "outside": (put("point", 0, 200.0), r"point: expected a median within .* at step 1, got 200"),
    "no coverage": (lambda found: found.ClearField("coverage"), r"coverage: expected the measured coverage, got none"),
    "coverage": (with_coverage(measured=1.5), r"coverage\.measured: expected a share .* 12 origins, got 1\.5"),
    "unmeasured": (with_coverage(measured=math.nan), r"coverage\.measured: .*got nan"),
    "nominal": (with_coverage(nominal=80.0), r"coverage\.nominal: expected a share between 0 and 1, got 80"),
    "phases": (timed, r"coverage\.phase_measured: expected 0 phases, got 3"),
    "gate": (lambda found: setattr(found, "gate", math.nan), r"gate: expected a weight from 0 to 1, got nan"),
    "context": (lambda found: setattr(found, "context", 41), r"context: expected 1 to 40 values, got 41"),
    "no context": (lambda found: found.ClearField("context"), r"context: expected 1 to 40 values, got 0"),
}


@pytest.mark.parametrize(("change", "match"), FORECASTS.values(), ids=FORECASTS)
def test_a_wrong_forecast_is_refused_alone(service: Any, change: Callable[[pb.Forecast], Any], match: str) -> None:
    def answer(request: pb.PredictRequest) -> pb.PredictResponse:
        found = conftest.predict(request)
        change(found.forecasts[-1].forecast)
        return found

    service.on["Predict"] = answer
    with Client(service.target) as client:
        error = refuses(lambda: client.predict(CLOSES, 2), match)
        assert error.violations[0][0].startswith("forecasts[0].forecast")
        assert len(service.calls) == 1, "a wrong answer is not asked for again"
        many = client.predict(UNIVERSE, 2)
        refuses(lambda: many["C"], match)
        assert many.failed.tolist() == [False, False, True]
        assert "C: the service sent a wrong answer: forecasts[2].forecast" in str(many.errors[2])
        assert np.isnan(many.quantiles[2]).all()
        assert np.isfinite(many.point[:2]).all()
        assert many.to_frame()["error"].str.contains("wrong answer").sum() == 1
        refuses(many.raise_errors, match)

    async def run() -> None:
        async with AsyncClient(service.target) as client:
            with pytest.raises(errors.InternalError, match=match):
                await client.predict(CLOSES, 2)

    asyncio.run(run())


def test_the_coverage_by_phase_fits_period_and_times(service: Any) -> None:
    def answer(request: pb.PredictRequest) -> pb.PredictResponse:
        found = conftest.predict(request)
        timed(found.forecasts[0].forecast)
        changes[-1](found.forecasts[0].forecast.coverage)
        return found

    service.on["Predict"] = answer
    times = np.datetime64("2026-01-01", "ns") + np.arange(40) * np.timedelta64(1, "D")
    with Client(service.target) as client:
        changes: list[Callable[[pb.Coverage], Any]] = [lambda coverage: None]
        assert client.predict(CLOSES, 2, times=times).coverage.phase_ahead == (1, 2)
        refuses(lambda: client.predict(CLOSES, 2, times=times, period=4), "phase_measured: expected 4 phases, got 3")
        refuses(lambda: client.predict(CLOSES, 2, period=3), "phase_ahead: expected 0 phases, got 2")
        for change, match in (
            (lambda coverage: coverage.phase_ahead.append(1), "phase_ahead: expected 2 phases, got 3"),
            (lambda coverage: coverage.phase_ahead.__setitem__(0, 3), "phase_ahead: expected phases below 3, got 3"),
            (lambda coverage: coverage.phase_origins.append(1), "phase_origins: expected 3 phases, got 4"),
            (lambda coverage: coverage.phase_origins.__setitem__(1, 9), r"phase_measured\[1\]: .* 9 origins, got nan"),
        ):
            changes.append(change)
            refuses(lambda: client.predict(CLOSES, 2, times=times), match)


RESPONSES: dict[str, tuple[Callable[[pb.PredictResponse], Any], str]] = {
    "too few": (lambda found: found.forecasts.pop(), "forecasts: expected 3 answers, got 2"),
    "too many": (lambda found: found.forecasts.add(), "forecasts: expected 3 answers, got 4"),
    "levels": (lambda found: found.quantile_levels.__setitem__(0, 0.05), r"quantile_levels: .*'0\.1'.*, got \['0\.05'"),
    "no levels": (lambda found: found.ClearField("quantile_levels"), r"quantile_levels: .*, got \[\]"),
}


@pytest.mark.parametrize(("change", "match"), RESPONSES.values(), ids=RESPONSES)
def test_an_answer_of_another_form_is_refused_whole(
    service: Any, change: Callable[[pb.PredictResponse], Any], match: str
) -> None:
    def answer(request: pb.PredictRequest) -> pb.PredictResponse:
        found = conftest.predict(request)
        change(found)
        return found

    service.on["Predict"] = answer
    with Client(service.target) as client, pytest.raises(errors.InternalError, match=match):
        client.predict(UNIVERSE, 2)


def test_answers_in_another_order_are_refused(service: Any) -> None:
    def swapped(request: Any) -> Any:
        request.series.reverse() if hasattr(request, "series") else request.panels.reverse()
        return (conftest.predict if hasattr(request, "series") else conftest.indicators)(request)

    service.on["Predict"] = service.on["ComputeIndicators"] = swapped
    with Client(service.target) as client:
        for many in (client.predict(UNIVERSE, 2), client.indicators(UNIVERSE, SPECS)):
            assert many.failed.tolist() == [True, False, True]
            refuses(lambda many=many: many["A"], r"\[0\]\.symbol: expected 'A', got 'C'")
        service.on["Predict"] = lambda request: conftest.predict(
            pb.PredictRequest(series=[pb.Series(symbol="X", values=CLOSES)], horizon=2)
        )
        refuses(lambda: client.predict(CLOSES, 2), r"forecasts\[0\]\.symbol: expected '', got 'X'")


def test_rounding_of_quantiles_is_no_wrong_answer(service: Any) -> None:
    def answer(request: pb.PredictRequest) -> pb.PredictResponse:
        found = conftest.predict(request)
        for item in found.forecasts:
            item.forecast.quantiles[1] = item.forecast.quantiles[2] * (1 + 1e-14)
        return found

    service.on["Predict"] = answer
    with Client(service.target) as client:
        assert client.predict(CLOSES, 2).horizon == 2
        assert not client.predict(UNIVERSE, 2).failed.any()


@pytest.mark.parametrize("levels", [[0.6, 0.9], [0.5], [0.2]])
def test_levels_on_one_side_of_the_median_leave_the_point_outside(service: Any, levels: list[float]) -> None:
    with Client(service.target) as client:
        assert client.predict(CLOSES, 2, quantiles=levels).levels.tolist() == levels
        assert not client.predict(UNIVERSE, 2, quantiles=levels).failed.any()
        before = service.on["Predict"]

        def answer(request: pb.PredictRequest) -> pb.PredictResponse:
            found = before(request)
            found.forecasts[0].forecast.point[0] = math.nan
            return found

        service.on["Predict"] = answer
        refuses(lambda: client.predict(CLOSES, 2, quantiles=levels), "point: expected finite numbers, got nan")
        assert client.predict(UNIVERSE, 2, quantiles=levels).failed.tolist() == [True, False, False]


def output(found: pb.IndicatorSet, indicator: int, at: int = 0) -> Any:
    return found.indicators[indicator].outputs[at]


INDICATORS: dict[str, tuple[Callable[[pb.IndicatorSet], Any], str]] = {
    "too long": (lambda found: output(found, 0).values.append(1.0), "outputs: real: expected 40 values .*, got 41"),
    "too short": (lambda found: output(found, 1, 2).values.pop(), "macdhist: expected 40 values for 40 bars, got 39"),
    "newest": (lambda found: output(found, 2).values.append(1.0), "real: expected 5 values for 40 bars, got 6"),
    "empty": (lambda found: found.Clear(), "indicators: expected 3 indicators, got 0"),
    "missing": (lambda found: found.indicators.pop(), "indicators: expected 3 indicators, got 2"),
    "order": (lambda found: found.indicators.reverse(), r"indicators\[0\]\.name: expected 'RSI', got 'SMA'"),
    "outputs": (lambda found: found.indicators[1].outputs.pop(), r"indicators\[1\]\.outputs: expected 3 outputs"),
    "names": (lambda found: setattr(output(found, 1, 1), "name", "macd"), r"indicators\[1\]\.outputs: .*different"),
    "none": (lambda found: found.indicators[0].ClearField("outputs"), r"outputs: expected 1 outputs .*, got \[\]"),
}


@pytest.mark.parametrize(("change", "match"), INDICATORS.values(), ids=INDICATORS)
def test_wrong_indicators_are_refused_alone(service: Any, change: Callable[[pb.IndicatorSet], Any], match: str) -> None:
    def answer(request: pb.ComputeIndicatorsRequest) -> pb.ComputeIndicatorsResponse:
        found = conftest.indicators(request)
        change(found.panels[-1].indicators)
        return found

    service.on["ComputeIndicators"] = answer
    with Client(service.target) as client:
        refuses(lambda: client.indicators(CLOSES, SPECS), match)
        many = client.indicators(UNIVERSE, SPECS)
        refuses(lambda: many["C"], match)
        assert many.failed.tolist() == [False, False, True]
        assert np.isnan(many.column("MACD.macd")).any(axis=1).tolist() == [False, False, True]


def test_nan_of_an_indicator_is_legal(service: Any) -> None:
    """A warm-up, and numbers without a logarithm."""

    def answer(request: pb.ComputeIndicatorsRequest) -> pb.ComputeIndicatorsResponse:
        found = conftest.indicators(request)
        for panel in found.panels:
            values = panel.indicators.indicators[0].outputs[0].values
            values[0], values[20], values[21] = math.nan, math.nan, -math.inf
        return found

    service.on["ComputeIndicators"] = answer
    with Client(service.target) as client:
        assert np.isnan(client.indicators(CLOSES, ["LN"])["LN"]).sum() == 2
        assert np.isnan(client.indicators(UNIVERSE, ["LN"]).column("LN")).sum(axis=1).tolist() == [2, 2, 2]


SENTIMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "sum": (
        {"neutral": 0.25},
        r"expected probabilities with the sum 1, got \(0\.0, 0\.25, 0\.875\) with the sum 1\.125",
    ),
    "nan": ({"neutral": math.nan}, "probabilities from 0 to 1"),
    "negative": ({"negative": -0.25, "neutral": 0.375}, "probabilities from 0 to 1"),
    "zero": ({"neutral": 0.0, "positive": 0.0}, "the sum 0"),
    "score": ({"score": -0.875}, r"score: expected 0\.875, positive less negative, got -0\.875"),
    "nan score": ({"score": math.nan}, "score: .* got nan"),
    "label": ({"label": pb.SENTIMENT_LABEL_NEGATIVE}, "label: expected the most probable label"),
    "no label": ({"label": 0}, "label: .* got number 0"),
    "unknown label": ({"label": 9}, "label: .* got number 9"),
    "windows": ({"chunks": 0}, "chunks: expected at least 1 window"),
}


@pytest.mark.parametrize(("fields", "match"), SENTIMENTS.values(), ids=SENTIMENTS)
def test_a_wrong_sentiment_is_refused_alone(service: Any, fields: dict[str, Any], match: str) -> None:
    right = {"label": pb.SENTIMENT_LABEL_POSITIVE, "score": 0.875, "neutral": 0.125, "positive": 0.875, "chunks": 1}

    def answer(request: pb.AnalyzeSentimentRequest) -> pb.AnalyzeSentimentResponse:
        found = conftest.sentiment(request)
        found.sentiments[-1].sentiment.CopyFrom(pb.Sentiment(**{**right, **fields}))
        return found

    service.on["AnalyzeSentiment"] = answer
    with Client(service.target) as client:
        refuses(lambda: client.sentiment("shares up"), match)
        many = client.sentiment(TEXTS)
        refuses(lambda: many["C"], rf"C: the service sent a wrong answer: sentiments\[2\]\.sentiment.*{match}")
        assert many.failed.tolist() == [False, False, True]
        service.on["AnalyzeSentiment"] = lambda request: conftest.sentiment(pb.AnalyzeSentimentRequest(texts=["up"]))
        refuses(lambda: client.sentiment(TEXTS), "sentiments: expected 3 answers, got 1")


def test_items_without_a_result_are_refused(service: Any) -> None:
    service.on["AnalyzeSentiment"] = lambda request: pb.AnalyzeSentimentResponse(sentiments=[pb.TextSentiment()])
    with Client(service.target) as client:
        refuses(lambda: client.sentiment("shares up"), r"sentiments\[0\]: expected an answer or an error, got neither")


def test_the_parts_of_an_analysis_are_those_asked_for_and_checked_like_calls_of_their_own(service: Any) -> None:
    def answer(request: pb.AnalyzeRequest) -> pb.AnalyzeResponse:
        found = conftest.analyze(request)
        found.predict.request_id = "part"
        changes[-1](found)
        return found

    service.on["Analyze"] = answer
    changes: list[Callable[[pb.AnalyzeResponse], Any]] = []
    with Client(service.target) as client:
        for change, match in (
            (lambda found: found.ClearField("predict"), "predict: expected an answer or an error, got nothing"),
            (lambda found: found.sentiment.SetInParent(), "sentiment: expected nothing, got sentiment"),
            (lambda found: found.predict.forecasts.pop(), "forecasts: expected 3 answers, got 2"),
        ):
            changes.append(change)
            refuses(lambda: client.analyze(UNIVERSE, 2), match)
        changes.append(lambda found: found.predict.forecasts[1].forecast.point.pop())
        refuses(lambda: client.analyze(UNIVERSE, 2).forecasts["B"], "point: expected 2 values, got 1")


def test_health_state_and_time_without_a_meaning_are_refused(service: Any) -> None:
    with Client(service.target) as client:
        for health, seconds, match in (
            (0, 1, "^the.* health: expected one of HEALTH_HEALTHY, .*, got 0"),
            (1, 0, "time: "),
        ):
            service.on["GetStatus"] = lambda request, health=health, seconds=seconds: pb.GetStatusResponse(
                health=health, time={"seconds": seconds}
            )
            refuses(client.status, match)
        service.on["GetStatus"] = lambda request: pb.GetStatusResponse(health=9, time={"seconds": 1})
        assert client.status().health == "9"
        service.on["ListModels"] = lambda request: pb.ListModelsResponse(models=[pb.ModelInfo(name="auto")])
        refuses(client.models, r"models\[0\]\.state: expected one of MODEL_STATE_AVAILABLE, .*, got 0")


def test_wrong_answers_on_a_stream_are_refused() -> None:
    def wrong(request: pb.StreamItem) -> bytes:
        found = conftest.predict(request.predict)
        if request.predict.horizon == 1:
            found.forecasts[0].forecast.point[0] = math.nan
        if request.predict.horizon == 2:
            return stream_answer(request.id, sentiment=found.SerializeToString())
        return stream_answer(request.id, predict=found.SerializeToString())

    with service_with_streams(wrong) as target, Client(target) as client, client.stream() as stream:
        for horizon, match in (
            (1, "point: expected finite"),
            (2, "answers.result: expected predict or error, got senti"),
        ):
            with pytest.raises(errors.InternalError, match=match):
                stream.predict(CLOSES, horizon).result(60)
        assert stream.predict(CLOSES, 3).result(60).horizon == 3


class Sessions(MarketInferenceServiceServicer):
    """A live session with an update for each bar, which `change` makes wrong."""

    change: Callable[[pb.WatchResponse], Any]

    def Watch(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[pb.WatchResponse]:  # noqa: N802
        next(requests)
        opened = pb.WatchOpened(columns=["RSI", "MACD.macd", "MACD.macdsignal"], request_id="r")
        opened.quantile_levels.extend([0.1, 0.5, 0.9])
        yield self._changed(pb.WatchResponse(opened=opened))
        for taken, request in enumerate(requests, start=1):
            found = pb.WatchResponse(sequence=request.bar.sequence, taken=taken)
            found.update.indicators.extend([math.nan, 1.0, 2.0])
            if not request.bar.sequence % 2:
                asked = pb.PredictRequest(horizon=2, quantiles=[0.1, 0.5, 0.9], series=[pb.Series(values=CLOSES)])
                found.update.forecast.CopyFrom(conftest.predict(asked).forecasts[0].forecast)
            yield self._changed(found)

    def _changed(self, found: pb.WatchResponse) -> pb.WatchResponse:
        self.change(found)
        return found


@pytest.fixture
def sessions() -> Iterator[tuple[Sessions, str]]:
    server, servicer = grpc.server(ThreadPoolExecutor(4)), Sessions()
    add_MarketInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    server.stop(None).wait(60)


def first(change: Callable[[pb.WatchResponse], Any]) -> Callable[[pb.WatchResponse], Any]:
    """A change of the answer that opens the session."""
    return lambda found: change(found) if found.HasField("opened") else None


def later(change: Callable[[pb.WatchResponse], Any]) -> Callable[[pb.WatchResponse], Any]:
    """A change of the answer to the second bar."""
    return lambda found: change(found) if found.sequence == 2 else None


OPENINGS = {
    "columns": (
        lambda found: found.opened.columns.pop(0),
        r"opened\.columns: expected columns of RSI, MACD, got \['MACD",
    ),
    "more columns": (lambda found: found.opened.columns.append("SMA"), r"opened\.columns: .*'SMA'\]"),
    "levels": (
        lambda found: found.opened.quantile_levels.pop(),
        r"quantile_levels: expected .*, got \['0\.1', '0\.5'\]",
    ),
    "another answer": (lambda found: found.update.SetInParent(), "result: expected opened, .* got update"),
}
UPDATES = {
    "values": (lambda found: found.update.indicators.pop(), r"update\.indicators: expected 3 values, got 2"),
    "sequence": (lambda found: setattr(found, "sequence", 7), "sequence: expected 2, got 7"),
    "repeated": (lambda found: setattr(found, "taken", 1), "taken: expected 1 to 1 bars in flight, got 0 bars"),
    "ahead": (lambda found: setattr(found, "taken", 9), "taken: expected 1 to 1 bars in flight, got 8 bars"),
    "no result": (lambda found: found.ClearField("update"), "result: expected an update or an error, got neither"),
    "opened": (lambda found: found.opened.SetInParent(), "result: .* got opened for the second time"),
    "no forecast": (
        lambda found: found.update.ClearField("forecast"),
        r"update\.forecast: expected a forecast, got none",
    ),
    "nan": (lambda found: put("point", 1, math.nan)(found.update.forecast), r"update\.forecast\.point: .* got nan"),
    "horizon": (lambda found: found.update.forecast.point.pop(), r"update\.forecast\.point: expected 2 values, got 1"),
}
ASKED = {"indicators": ["RSI", "MACD"], "forecast": ForecastEvery(2, quantiles=[0.1, 0.5, 0.9], every=2)}


@pytest.mark.parametrize(("change", "match"), OPENINGS.values(), ids=OPENINGS)
def test_a_session_that_opens_wrongly_is_refused(
    sessions: tuple[Sessions, str], change: Callable[[pb.WatchResponse], Any], match: str
) -> None:
    servicer, target = sessions
    servicer.change = first(change)
    with Client(target) as client, pytest.raises(errors.InternalError, match=match):
        client.watch("A", CLOSES, **ASKED).__enter__()

    async def run() -> None:
        async with AsyncClient(target) as client:
            with pytest.raises(errors.InternalError, match=match):
                await client.watch("A", CLOSES, **ASKED).__aenter__()

    asyncio.run(run())


@pytest.mark.parametrize(("change", "match"), UPDATES.values(), ids=UPDATES)
def test_a_wrong_update_ends_the_session(
    sessions: tuple[Sessions, str], change: Callable[[pb.WatchResponse], Any], match: str
) -> None:
    servicer, target = sessions
    servicer.change = later(change)
    with Client(target) as client, client.watch("A", CLOSES, **ASKED) as session:
        assert isinstance(session, Watch)
        session.append(101.0)
        update = next(session)
        assert math.isnan(update["RSI"])
        assert update.forecast is None
        session.append(102.0)
        with pytest.raises(errors.InternalError, match=match):
            next(session)
        with pytest.raises(errors.ClosedError):
            next(session)

    async def run() -> None:
        async with AsyncClient(target) as client, client.watch("A", CLOSES, **ASKED) as session:
            assert isinstance(session, AsyncWatch)
            await session.append(101.0)
            assert (await anext(session))["MACD.macd"] == 1.0
            await session.append(102.0)
            for _ in range(2):
                with pytest.raises(errors.InternalError, match=match):
                    await anext(session)

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_right_session_has_its_forecasts(sessions: tuple[Sessions, str]) -> None:
    servicer, target = sessions
    servicer.change = lambda found: None
    with Client(target) as client, client.watch("A", CLOSES, **ASKED) as session:
        for close in (101.0, 102.0):
            session.append(close)
        first, second = next(session), next(session)
    assert first.forecast is None
    assert second.forecast.horizon == 2


def test_a_column_that_breaks_off_inside_a_number_is_refused(service: Any) -> None:
    found = answers_pb2.ForecastAnswer(point=bytes(15))
    with pytest.raises(errors.InternalError, match="a part of a number"):
        checks.forecast(found, checks.AskedForecast(2, ()), 40, timed=False, place="forecast", request_id="")
