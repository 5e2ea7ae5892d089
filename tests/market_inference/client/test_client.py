"""The synchronous client against a server on a real socket."""

import asyncio
import inspect
import math
import socket
import threading
import uuid
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import market_inference
from market_inference import AsyncClient, Client, Retries, errors
from market_inference.client.session import Record
from market_inference.contract.errors import (
    InternalError,
    InvalidRequestError,
    OverloadedError,
    ServiceUnavailableError,
    UnauthenticatedError,
    Violation,
)
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.methods import MAX_ANSWER_BYTES, METHODS
from market_inference.errors import ArgumentError

CLOSES = np.linspace(100, 129, 30)
BARS = {
    "Open": CLOSES,
    "HIGH": CLOSES + 1,
    "low": CLOSES - 1,
    "Close": CLOSES,
    "Volume": CLOSES * 10,
    "Date": [f"2026-01-{day:02}" for day in range(1, 31)],
    "note": ["x"] * 30,
}


def test_one_series_gives_one_forecast_with_its_interval(service: Any) -> None:
    with Client(service.target) as client:
        forecast = client.predict(CLOSES, horizon=3)
    assert forecast.horizon == 3
    assert forecast.point.dtype == np.float64
    np.testing.assert_array_equal(forecast.point, [129, 129, 129])
    assert forecast.quantiles.shape == (3, 9)
    lower, upper = forecast.interval(0.8)
    np.testing.assert_allclose(lower, [128.6, 128.2, 127.8])
    np.testing.assert_allclose(upper, [129.4, 129.8, 130.2])
    assert forecast.coverage == market_inference.Coverage(0.8, 0.75, 12)
    assert (forecast.model, forecast.context) == ("walk", 30)


def test_an_interval_whose_levels_were_not_asked_for_says_which_there_are(service: Any) -> None:
    with Client(service.target) as client:
        forecast = client.predict(CLOSES, horizon=1, quantiles=[0.05, 0.5, 0.95])
    assert forecast.interval(0.9)[0] < forecast.interval(0.9)[1]
    with pytest.raises(
        errors.ArgumentError, match=r"share: no quantile 0\.1 .*0\.05, 0\.5, 0\.95.*interval=0\.8"
    ) as caught:
        forecast.interval(0.8)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(errors.ArgumentError, match=r"level: no quantile 0\.2 .* quantiles=\[\.\.\., 0\.2\]"):
        forecast.quantile(0.2)
    for share in (80, 0, None, math.nan):
        with pytest.raises(errors.ArgumentError, match=r"^share: "):
            forecast.interval(share)  # type: ignore[arg-type]


def test_a_missing_text_fails_alone_and_says_what_was_given(service: Any) -> None:
    with Client(service.target) as client:
        answers = client.sentiment(["profit up", None, math.nan])  # type: ignore[list-item]
    assert list(answers.answered) == [0]
    assert str(answers.errors[1]) == "texts[1]: must not be empty; got None: leave missing texts out"
    assert str(answers.errors[2]) == "texts[2]: must not be empty; got nan: leave missing texts out"


def test_many_series_answer_in_order_and_a_bad_one_fails_alone_when_reached_for(service: Any) -> None:
    with Client(service.target) as client:
        answers = client.predict({"A": CLOSES, "BAD": CLOSES * np.nan, "C": CLOSES + 1}, horizon=2)
    assert answers.symbols == ("A", "BAD", "C")
    assert answers["C"].point[0] == answers[2].point[0] == 130
    assert list(answers.answered) == [0, 2]
    assert isinstance(answers.errors[1], errors.InvalidRequestError)
    with pytest.raises(errors.InvalidRequestError, match="must be finite"):
        answers["BAD"]
    with pytest.raises(KeyError, match="'D'; there are A, BAD, C"):
        answers["D"]


def test_a_number_that_is_a_symbol_and_another_position_is_refused(service: Any) -> None:
    """The caller's own keys are numbers."""
    with Client(service.target) as client:
        swapped = client.predict({1: CLOSES, 0: CLOSES + 1, 7: CLOSES + 2}, horizon=1)
        columns = client.predict(pd.DataFrame({0: CLOSES, 1: CLOSES + 1}), horizon=1)
    for read in (swapped.__getitem__, swapped.get):
        with pytest.raises(ValueError, match=r"1 is a symbol and a position: give '1', or take values\(\)\[1\]"):
            read(1)
    assert [swapped[which].point[0] for which in ("1", "0", 2)] == [129, 130, 131]
    assert [columns[which].point[0] for which in (0, "1", 1, -1)] == [129, 130, 130, 130]


def test_answers_by_symbol_are_a_mapping_whose_iteration_never_raises(service: Any) -> None:
    with Client(service.target) as client:
        answers = client.predict({"A": CLOSES, "BAD": CLOSES * np.nan}, horizon=2)
    assert list(answers) == list(answers.keys()) == ["A", "BAD"]
    assert "A" in answers
    assert "BAD" in answers
    assert "D" not in answers
    assert 0 not in answers
    good, bad = answers.values()
    assert dict(answers.items()) == {"A": good, "BAD": bad}
    assert good.horizon == 2
    assert isinstance(bad, errors.InvalidRequestError)
    with pytest.raises(AttributeError, match=r"no 'point': this item failed: BAD: series\[1\].values: must be finite"):
        _ = bad.point
    assert answers.get("BAD") is answers.get("D") is None
    assert answers.get("A") is good


def test_an_answer_beyond_the_contract_is_refused_once(service: Any) -> None:
    asked: list[Any] = []

    def answer(request: pb.AnalyzeSentimentRequest) -> pb.AnalyzeSentimentResponse:
        asked.append(request)
        return pb.AnalyzeSentimentResponse(model="m" * (2 * MAX_ANSWER_BYTES))

    service.on["AnalyzeSentiment"] = answer
    with Client(service.target) as client, pytest.raises(errors.InternalError, match="message larger than max"):
        client.sentiment("profit up")
    assert len(asked) == 1


def test_answers_without_symbols_are_a_sequence_whose_iteration_never_raises(service: Any) -> None:
    with Client(service.target) as client:
        answers = client.sentiment(["shares up", ""])
    good, bad = answers
    assert good.label == "positive"
    assert isinstance(bad, errors.InvalidRequestError)
    assert list(answers.keys()) == [0, 1]
    assert 1 in answers
    assert answers.items() == [(0, good), (1, bad)]


def test_a_single_series_that_fails_raises(service: Any) -> None:
    with Client(service.target) as client, pytest.raises(errors.InvalidRequestError):
        client.predict(CLOSES * np.nan, horizon=2)


def test_a_collection_of_one_is_still_a_collection(service: Any) -> None:
    with Client(service.target) as client:
        assert len(client.predict([CLOSES], horizon=2)) == 1
        assert len(client.sentiment(["up"])) == 1
        assert len(client.indicators([BARS], "RSI")) == 1


def test_sentiment_of_one_text_and_of_many(service: Any) -> None:
    with Client(service.target) as client:
        one = client.sentiment("shares up")
        many = client.sentiment(text for text in ["shares up", "", "shares slip"])
    assert (one.label, one.positive, one.model) == ("positive", 0.75, "words")
    assert [many[0].label, many[2].label] == ["positive", "negative"]
    with pytest.raises(errors.InvalidRequestError):
        many[1]


def test_indicators_are_reached_by_name_output_and_parameters(service: Any) -> None:
    with Client(service.target) as client:
        found = client.indicators(
            BARS, ["RSI", "MACD", ("SMA", {"timeperiod": 2}), "SMA:timeperiod=0.5", "EMA:timeperiod=3"]
        )
    np.testing.assert_array_equal(found["RSI"], CLOSES)
    assert list(found["MACD"]) == ["macd", "macdsignal", "macdhist"]
    np.testing.assert_array_equal(found["MACD.macdhist"], CLOSES + 2)
    np.testing.assert_array_equal(found["SMA:timeperiod=2"], CLOSES * 2)
    np.testing.assert_array_equal(found["SMA:timeperiod=0.5"], CLOSES / 2)
    np.testing.assert_array_equal(found["SMA:timeperiod=0.5.real"], CLOSES / 2)
    np.testing.assert_array_equal(found["EMA"], found["EMA:timeperiod=3"])
    assert list(found) == [
        "RSI", "MACD.macd", "MACD.macdsignal", "MACD.macdhist", "SMA:timeperiod=2", "SMA:timeperiod=0.5", "EMA",
    ]  # fmt: skip
    assert all(name in found for name in ("MACD", "MACD.macdsignal", "EMA:timeperiod=3"))
    with pytest.raises(KeyError, match=r"ATR.*there are RSI"):
        found["ATR"]
    with pytest.raises(KeyError, match=r"MACD.hist.*MACD has macd, macdsignal, macdhist"):
        found["MACD.hist"]
    assert found.get("ATR") is None
    assert list(found.get("MACD")) == ["macd", "macdsignal", "macdhist"]
    assert repr(found).startswith("Indicators(the newest RSI ")
    assert repr(found).endswith(f"SMA:timeperiod=2 {CLOSES[-1] * 2:.6g}, ...; 30 bars)")
    frame = pd.DataFrame(found)
    assert frame.shape == (30, 7)
    np.testing.assert_array_equal(frame["MACD.macdhist"], CLOSES + 2)
    assert pl.DataFrame(found).columns == list(found)
    _, request, _ = service.calls[0]
    assert (len(request.panels[0].close), len(request.panels[0].high)) == (30, 0)
    assert dict(request.indicators[2].params) == {"timeperiod": 2.0}


async def test_every_client_sends_covariates_and_groups(service: Any) -> None:
    beside = {"volume": [*CLOSES, 1.0, 2.0]}
    options: dict[str, Any] = {"covariates": beside, "known_ahead": ["volume"]}
    with Client(service.target) as client:
        client.predict(CLOSES, 2, **options)
        client.predict({"A": CLOSES, "B": CLOSES}, 2, groups=True)
    async with AsyncClient(service.target) as other:
        await other.predict(CLOSES, 2, **options)
        await other.predict([CLOSES, CLOSES], 2, groups=["x", "x"])
    first, grouped, *rest = (request for _, request, _ in service.calls)
    assert list(first.covariates) == ["volume"]
    np.testing.assert_array_equal(first.series[0].past_covariates, CLOSES)
    assert list(first.series[0].future_covariates) == [1.0, 2.0]
    assert (list(grouped.groups), len(grouped.covariates)) == (["all", "all"], 0)
    assert rest[0] == first
    assert list(rest[1].groups) == ["x", "x"]


def test_last_bounds_every_indicator_that_names_no_own(service: Any) -> None:
    with Client(service.target) as client:
        found = client.indicators(CLOSES, ["RSI", {"name": "EMA", "last": 2}], last=1)
    assert (len(found["RSI"]), len(found["EMA"])) == (1, 2)


def test_panels_of_many_symbols_answer_by_symbol_and_a_bad_one_fails_alone(service: Any) -> None:
    with Client(service.target) as client:
        answers = client.indicators({"A": BARS, "BAD": {"close": -CLOSES}}, "RSI")
    np.testing.assert_array_equal(answers["A"]["RSI"], CLOSES)
    assert list(answers.errors) == [1]


def test_the_same_indicator_twice_is_refused_before_it_is_sent(service: Any) -> None:
    with Client(service.target) as client, pytest.raises(ValueError, match="asked for twice"):
        client.indicators(BARS, ["RSI", "RSI"])
    assert service.calls == []


def test_analyze_gives_the_parts_asked_for_and_a_failed_part_leaves_the_others_whole(service: Any) -> None:
    with Client(service.target) as client:
        analysis = client.analyze({"A": CLOSES}, 2, texts="shares up", bars=BARS, indicators="RSI")
        only = client.analyze(bars=BARS, indicators="RSI")
    assert analysis.forecasts is not None
    assert analysis.forecasts["A"].horizon == 2
    assert analysis.indicators is not None
    assert len(analysis.indicators[0]["RSI"]) == 30
    assert list(analysis.errors) == ["sentiments"]
    with pytest.raises(errors.UnavailableError, match="sentiment model"):
        _ = analysis.sentiments
    assert only.forecasts is None
    assert only.sentiments is None


def test_status_and_models_come_as_plain_values(service: Any) -> None:
    with Client(service.target) as client:
        status, models = client.status(), client.models()
    assert (status.health, status.time.isoformat()) == ("degraded", "2026-01-02T03:04:05+00:00")
    assert [engine.health for engine in status.engines] == ["healthy", "unhealthy"]
    assert status.replicas[0].device.kind == "cpu"
    assert [(model.name, model.state, model.is_default) for model in models] == [
        ("auto", "ready", True),
        ("fracast", "available", False),
    ]


def test_every_call_carries_an_id_a_priority_and_the_key(service: Any) -> None:
    with Client(service.target, api_key="secret") as client:
        named = client.predict(CLOSES, 1, request_id="mine", priority="batch")
        unnamed = client.predict(CLOSES, 1)
    assert named.request_id == "mine"
    uuid.UUID(unnamed.request_id)
    metadata = service.calls[0][2]
    assert (metadata["x-request-id"], metadata["x-priority"]) == ("mine", "batch")
    assert metadata["authorization"] == "Bearer secret"
    assert service.calls[1][2]["x-priority"] == "interactive"


def test_an_argument_that_does_not_exist_is_a_type_error(service: Any) -> None:
    with Client(service.target) as client, pytest.raises(TypeError, match="timeot"):
        client.status(timeot=1.0)  # type: ignore[call-arg]


def test_the_key_comes_from_the_argument_then_the_environment_then_the_local_gateway(
    service: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def key_sent(**arguments: Any) -> object:
        with Client(service.target, **arguments) as client:
            client.status()
        return service.calls[-1][2].get("authorization")

    assert key_sent() is None
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "development-key").write_text("local\n")
    assert key_sent() == "Bearer local"
    monkeypatch.setenv("MARKET_INFERENCE_API_KEY", "environment")
    assert key_sent() == "Bearer environment"
    assert key_sent(api_key="argument") == "Bearer argument"
    assert key_sent(api_key="") is None


def test_errors_carry_fields_reason_and_request_id(service: Any) -> None:
    broken = [Violation("horizon", "must be at most 365, got 366"), Violation("series[0].values", "too short")]
    service.fail("Predict", InvalidRequestError(broken))
    with Client(service.target) as client, pytest.raises(errors.InvalidRequestError) as caught:
        client.predict(CLOSES, 366, request_id="r-1")
    error = caught.value
    assert error.violations == [("horizon", "must be at most 365, got 366"), ("series[0].values", "too short")]
    assert (error.code, error.reason, error.request_id) == ("INVALID_ARGUMENT", "INVALID_REQUEST", "r-1")
    assert "request id: r-1" in error.__notes__
    assert isinstance(error, market_inference.MarketInferenceError)


@pytest.mark.parametrize(
    ("sent", "raised"),
    [(UnauthenticatedError("no key"), errors.UnauthenticatedError), (InternalError(), errors.InternalError)],
)
def test_what_cannot_get_better_is_not_sent_again(service: Any, sent: Any, raised: type[Exception]) -> None:
    service.fail("Predict", sent)
    with Client(service.target) as client, pytest.raises(raised):
        client.predict(CLOSES, 1)
    assert service.methods_called == ["Predict"]


def test_an_unavailable_service_and_advice_to_return_are_tried_again_under_the_same_id(service: Any) -> None:
    service.fail("Predict", OverloadedError("full", retry_after=0.001))
    service.fail("Predict", ServiceUnavailableError("draining"))
    with Client(service.target, retries=Retries(first_pause=0.001)) as client:
        client.predict(CLOSES, 1)
    assert service.methods_called == ["Predict"] * 3
    assert len({metadata["x-request-id"] for _, _, metadata in service.calls}) == 1


def test_retries_end_with_the_service_s_own_error(service: Any) -> None:
    service.fail("Predict", ServiceUnavailableError("draining"), times=99)
    with (
        Client(service.target, retries=Retries(attempts=1, first_pause=0.001)) as client,
        pytest.raises(errors.UnavailableError, match="draining"),
    ):
        client.predict(CLOSES, 1)
    assert service.methods_called == ["Predict"] * 2


def test_an_overload_without_advice_or_beyond_the_timeout_is_raised_at_once(service: Any) -> None:
    service.fail("Predict", OverloadedError("full"))
    service.fail("AnalyzeSentiment", OverloadedError("full", retry_after=60.0))
    with Client(service.target, timeout=50.0) as client:
        with pytest.raises(errors.OverloadedError):
            client.predict(CLOSES, 1)
        with pytest.raises(errors.OverloadedError) as caught:
            client.sentiment("up")
    assert caught.value.retry_after == pytest.approx(60)
    assert service.methods_called == ["Predict", "AnalyzeSentiment"]


def test_a_timeout_is_a_deadline_exceeded_error(service: Any) -> None:
    release = threading.Event()
    service.on["Predict"] = lambda request: (release.wait(), _fail())
    with Client(service.target) as client, pytest.raises(errors.DeadlineExceededError, match="timeout passed"):
        client.predict(CLOSES, 1, timeout=0.05)
    release.set()


def test_nobody_listening_is_an_unavailable_error() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{bound.getsockname()[1]}"
        with Client(target, retries=Retries(attempts=0)) as client, pytest.raises(errors.UnavailableError) as caught:
            client.status()
    assert caught.value.request_id


def test_a_client_serves_many_threads(service: Any) -> None:
    found: dict[int, float] = {}
    with Client(service.target) as client:

        def call(at: int) -> None:
            found[at] = client.predict(CLOSES + at, 1).point[0]

        threads = [threading.Thread(target=call, args=(at,)) for at in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert found == {at: 129.0 + at for at in range(16)}


def _fail() -> None:
    raise ServiceUnavailableError("too late")


# More items than a request may hold


def test_more_series_than_a_request_holds_travel_in_several_under_one_id(service: Any) -> None:
    series = {f"S{at}": CLOSES + at for at in range(300)}
    series["S270"] = CLOSES * np.nan
    with Client(service.target) as client:
        answers = client.predict(series, 1, request_id="mine")
    assert [len(request.series) for _, request, _ in service.calls] == [256, 44]
    assert {metadata["x-request-id"] for _, _, metadata in service.calls} == {"mine"}
    assert answers.symbols == tuple(series)
    assert answers["S299"].point[0] == 129 + 299
    # The place is the caller's, not that in the second request.
    error = answers.errors[270]
    assert "S270: series[270].values: must be finite" in error.message


def test_series_beyond_the_byte_limit_travel_in_several_requests(service: Any) -> None:
    long = np.linspace(100, 129, 10_000)
    with Client(service.target) as client:
        answers = client.predict([long + at for at in range(256)], 1)
    assert [forecast.point[0] for forecast in answers] == [129.0 + at for at in range(256)]
    sizes = [request.ByteSize() for _, request, _ in service.calls]
    assert len(sizes) > 1
    assert max(sizes) <= METHODS["Predict"].max_request_bytes


def test_texts_and_panels_are_split_too(service: Any) -> None:
    with Client(service.target) as client:
        moods = client.sentiment([f"up {at}" for at in range(201)])
        values = client.indicators({f"S{at}": CLOSES + at for at in range(65)}, "RSI", last=1)
    assert len(moods) == 201
    assert values["S64"]["RSI"] == [129 + 64]
    assert service.methods_called == ["AnalyzeSentiment"] * 3 + ["ComputeIndicators"] * 2


def test_a_later_request_that_fails_is_the_error_of_its_items_alone(service: Any) -> None:
    good = service.on["Predict"]

    def answer(request: Any) -> Any:
        if len(request.series) < 256:
            raise InvalidRequestError([Violation("", "not now")])
        return good(request)

    service.on["Predict"] = answer
    with Client(service.target) as client:
        answers = client.predict([CLOSES] * 300, 1)
    assert (len(answers.answered), list(answers.errors)) == (256, list(range(256, 300)))
    with pytest.raises(errors.InvalidRequestError, match="not now"):
        answers[299]


def test_a_call_that_fails_from_the_first_request_on_raises(service: Any) -> None:
    service.fail("Predict", InvalidRequestError([Violation("horizon", "must be at most 365")]), times=9)
    with Client(service.target) as client, pytest.raises(errors.InvalidRequestError, match="at most 365"):
        client.predict([CLOSES] * 300, 366)
    assert service.methods_called == ["Predict"]


def test_an_analyze_call_says_which_call_splits(service: Any) -> None:
    with Client(service.target) as client, pytest.raises(ArgumentError, match=r"series: 300 .* call predict\(\)"):
        client.analyze([CLOSES] * 300, 1)
    assert service.calls == []


# Arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horizon": "10"}, "horizon: expected a whole number from 1, got '10'"),
        ({"horizon": -1}, "horizon: expected a whole number from 1, got -1"),
        ({"horizon": 2.5}, "horizon: expected a whole number from 1, got 2.5"),
        ({"horizon": 1, "quantiles": [90]}, r"quantiles\[0\]: .*for 90% write 0.9"),
        ({"horizon": 1, "interval": 80}, "interval.*for 80% write 0.8"),
        ({"horizon": 1, "model": 5}, "model: expected text, got 5"),
        ({"horizon": 1, "model": "\ud83d"}, "model: character 0"),
        ({"horizon": 1, "timeout": 0}, "timeout: expected seconds above 0"),
        ({"horizon": 1, "timeout": float("nan")}, "timeout: expected seconds above 0"),
        ({"horizon": 1, "timeout": "5"}, "timeout: expected seconds above 0"),
        ({"horizon": 1, "priority": "high"}, "priority: expected 'interactive' or 'batch', got 'high'"),
        ({"horizon": 1, "request_id": "ü"}, "request_id: expected 1 to 128 characters"),
    ],
    ids=str,
)
def test_arguments_are_refused_with_name_value_and_expectation_before_anything_is_sent(
    service: Any, arguments: Any, message: str
) -> None:
    with Client(service.target) as client, pytest.raises(ArgumentError, match=message):
        client.predict(CLOSES, **arguments)

    async def run() -> None:
        async with AsyncClient(service.target) as client:
            await client.predict(CLOSES, **arguments)

    with pytest.raises(ArgumentError, match=message):
        asyncio.run(run())
    assert service.calls == []


def test_harmless_forms_of_arguments_are_understood(service: Any) -> None:
    with Client(service.target, timeout=math.inf) as client:
        client.predict(CLOSES, 2.0, quantiles=0.5, model=None, timeout=1e18)  # type: ignore[arg-type]
        client.indicators(CLOSES, ("SMA", {"timeperiod": "20"}), last=np.int64(1))  # type: ignore[arg-type]
        assert client.status(timeout=math.inf).version == "0.1.0"
    predict, indicators = service.calls[0][1], service.calls[1][1]
    assert (predict.horizon, list(predict.quantiles)) == (2, [0.5])
    assert (dict(indicators.indicators[0].params), indicators.indicators[0].last) == ({"timeperiod": 20.0}, 1)


def test_the_arguments_of_a_client_and_a_session_are_checked(service: Any) -> None:
    for arguments, message in (
        ({"timeout": 0}, "timeout: expected seconds above 0"),
        ({"timeout": None}, "timeout: expected seconds above 0"),
    ):
        for kind in (Client, AsyncClient):
            with pytest.raises(ArgumentError, match=message):
                kind(service.target, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"retries.attempts: expected a whole number from 0, got -1"):
        Retries(attempts=-1)
    with pytest.raises(ArgumentError, match=r"forecast.horizon: expected a whole number from 1, got 0"):
        market_inference.ForecastEvery(0)
    with Client(service.target) as client:
        for arguments, message in (
            ({"keep": 0}, "keep: expected a whole number from 1"),
            ({"delivery": "newest"}, "delivery: expected 'lossless' or 'latest', got 'newest'"),
            ({"times": [1, 2]}, "times: there are 30 bars and 2 times"),
            ({"times": ["x"] * 30}, "times: row 0: 'x' is not a date or time"),
            ({"reconnect_seconds": -1}, "reconnect_seconds: expected seconds above 0"),
            ({"forecast": 5}, "forecast: expected a ForecastEvery"),
            ({"indicators": 5}, "indicators: expected a name"),
        ):
            with pytest.raises(ArgumentError, match=message):
                client.watch("A", CLOSES, **arguments)  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match="a session watches one instrument"):
            client.watch("A", {"A": CLOSES, "B": CLOSES})


def test_a_closed_client_says_so(service: Any) -> None:
    client = Client(service.target)
    client.close()
    client.close()
    for call in (client.status, lambda: client.watch("A", CLOSES), client.stream):
        with pytest.raises(errors.ClosedError, match="this client is closed"):
            call()

    async def run() -> None:
        client = AsyncClient(service.target)
        await client.status()
        await client.close()
        await client.close()
        await client.status()

    with pytest.raises(errors.ClosedError, match="this client is closed"):
        asyncio.run(run())


def test_an_asynchronous_client_belongs_to_the_loop_of_its_first_call(service: Any) -> None:
    client = AsyncClient(service.target)

    async def call() -> str:
        return (await client.status()).version

    assert asyncio.run(call()) == "0.1.0"
    with pytest.raises(errors.ClosedError, match="belongs to another event loop"):
        asyncio.run(call())
    with pytest.raises(errors.ClosedError, match="inside a running event loop"):
        client.stream()


# Data with dates


def test_dates_newest_first_are_reversed_and_said_at_the_caller_s_line(service: Any) -> None:
    """Sixty rising closes, written newest first: the forecast starts from the newest."""
    days = pd.date_range("2026-01-01", periods=60)
    frame = pd.DataFrame({"Close": np.arange(100.0, 160.0)}, index=days)[::-1]
    with Client(service.target) as client:
        with pytest.warns(errors.InputWarning, match="the index descends, newest first") as caught:
            forecast = client.predict(frame["Close"], 1)
        assert caught[0].filename == __file__
        with pytest.warns(errors.InputWarning, match="the index descends"):
            values = client.indicators(frame, "RSI")
    assert forecast.point[0] == 159
    assert forecast.notes == ("the index descends, newest first: the rows were reversed to oldest first",)
    assert forecast.index[-1] == days[-1]
    assert values["RSI"][-1] == 159
    assert list(values.index) == list(days)


def test_an_array_with_a_series_in_a_column_is_doubted_at_the_caller_s_line(service: Any) -> None:
    steps = np.random.default_rng(7).normal(0, 0.01, (60, 40))
    closes = np.arange(10.0, 50.0)[::-1] ** 2 * np.exp(np.cumsum(steps, axis=0))
    closes = closes[:, np.random.default_rng(7).permutation(40)]
    with Client(service.target) as client:
        with pytest.warns(errors.InputWarning, match=r"shape \(60, 40\) was read as \[series, values\]") as caught:
            assert len(client.predict(closes, 1)) == 60
        assert caught[0].filename == __file__
        assert len(client.predict(closes.T, 1)) == 40


def test_a_stock_listed_later_is_noted_in_its_answer_without_a_warning(service: Any) -> None:
    frame = pd.DataFrame({"OLD": np.arange(1.0, 61), "NEW": [np.nan] * 20 + [*range(40)]})
    with Client(service.target) as client, warnings.catch_warnings():
        warnings.simplefilter("error")
        found = client.predict(frame, 1)
    assert found["NEW"].notes == ("NEW: 20 missing values before its first value were left out",)
    assert found["OLD"].notes == ()


def test_companies_are_sent_with_their_texts(service: Any) -> None:
    with Client(service.target) as client:
        several = client.sentiment("Apple up, Nokia down", about=["Apple", "Nokia"])
        single = client.sentiment("Apple up", about="Apple")
        listed = client.sentiment(["Apple up", "Nokia down"], about=["Apple", "Nokia"])
        client.sentiment(["Apple up", "Apple down"], about="Apple")
        for wrong in ([], ["Apple", "Apple"], {"Apple"}, ""):
            with pytest.raises(errors.ArgumentError, match="about"):
                client.sentiment("Apple up", about=wrong)
        with pytest.raises(errors.ArgumentError, match="2 texts and 1 names"):
            client.sentiment(["Apple up", "Nokia down"], about=["Apple"])
    sent = [(list(request.texts), list(request.about)) for _, request, _ in service.calls]
    assert sent == [
        (["Apple up, Nokia down"] * 2, ["Apple", "Nokia"]),
        (["Apple up"], ["Apple"]),
        (["Apple up", "Nokia down"], ["Apple", "Nokia"]),
        (["Apple up", "Apple down"], ["Apple", "Apple"]),
    ]
    assert several.symbols == ("Apple", "Nokia")
    assert single.label == "positive"
    assert listed.symbols == ()


def test_the_synchronous_client_works_in_a_running_event_loop_as_in_a_notebook(service: Any) -> None:
    async def cell() -> float:
        with Client(service.target) as client:
            return float(client.predict(CLOSES, 1).point[0])

    assert asyncio.run(cell()) == CLOSES[-1]


def test_a_period_is_sent_and_the_coverage_by_phase_is_read(service: Any) -> None:
    good = service.on["Predict"]

    def answer(request: Any) -> Any:
        answered = good(request)
        coverage = answered.forecasts[0].forecast.coverage
        coverage.phase_measured.extend([0.5, 1.0])
        coverage.phase_origins.extend([4, 5])
        return answered

    service.on["Predict"] = answer
    with Client(service.target) as client:
        found = client.predict(CLOSES, 1, period=2)
        with pytest.raises(errors.ArgumentError, match="period"):
            client.predict(CLOSES, 1, period=-2)
    assert service.calls[-1][1].period == 2
    assert (found.coverage.by_phase, found.coverage.phase_origins) == ((0.5, 1.0), (4, 5))
    assert market_inference.ForecastEvery(5, period=24).message().period == 24
    assert market_inference.ForecastEvery(5, by_time=True).message().by_time
    with pytest.raises(ArgumentError, match="expected True or False"):
        market_inference.ForecastEvery(5, by_time="yes")  # type: ignore[arg-type]


def test_a_missing_value_is_refused_with_its_date_and_the_way_out(service: Any) -> None:
    closes = pd.Series(CLOSES, index=pd.date_range("2026-01-01", periods=30))
    closes.iloc[3] = np.nan
    with Client(service.target) as client, pytest.raises(errors.InvalidRequestError) as caught:
        client.predict(closes, 1)
    assert str(caught.value) == (
        "series[0].values: must be finite; row 3 (2026-01-04) without a value: fill such rows (ffill()) or leave them "
        "out (dropna())"
    )


def test_intervals_are_asked_for_by_their_share(service: Any) -> None:
    with Client(service.target) as client:
        forecast = client.predict(CLOSES, 1, interval=0.95)
        assert [round(level, 3) for level in forecast.levels] == [0.025, 0.5, 0.975]
        assert forecast.interval(0.95)[0] < forecast.interval(0.95)[1]
        with pytest.raises(ValueError, match=r"ask for the interval with predict\(..., interval=0.8\)"):
            forecast.interval(0.8)
        with pytest.raises(ValueError, match=r"got 80; for 80% give 0.8"):
            forecast.interval(80)


def test_a_forecast_is_shown_in_a_line(service: Any) -> None:
    with Client(service.target) as client:
        answers = client.predict({"AAPL": CLOSES, "BAD": CLOSES * np.nan}, 250)
        moods = client.sentiment(["shares up", "", *["shares slip"] * 5])
        mood = client.sentiment({"AAPL": "shares up"})["AAPL"]
        panels = client.indicators({"AAPL": CLOSES}, ["RSI"], last=1)
    assert repr(answers) == "Answers(2 items, 1 failed: AAPL 129 (29 to 229); BAD failed)"
    assert repr(moods).startswith(f"Answers(7 items, 1 failed: positive {mood.score:+.2f}; failed; negative -")
    assert repr(moods).endswith("; ...)")
    shares = f"negative {mood.negative:.2f}, neutral {mood.neutral:.2f}, positive {mood.positive:.2f}"
    assert repr(mood) == f"Sentiment(AAPL: positive {mood.score:+.2f}; {shares}; model words)"
    newest = f"{panels['AAPL']['RSI'][0]:.6g}"
    assert repr(panels["AAPL"]) == f"Indicators(AAPL: the newest RSI {newest}; 1 bars)"
    assert repr(panels) == f"Answers(1 items: AAPL RSI {newest})"
    shown = repr(answers["AAPL"])
    assert shown == "Forecast(AAPL: 250 steps, the last 129 (29 to 229 at levels 0.1 to 0.9), model walk)"


def test_a_text_by_symbol_is_classified_and_not_its_symbol(service: Any) -> None:
    with Client(service.target) as client:
        moods = client.sentiment({"AAPL": "shares up", "MSFT": "shares slip"})
    assert {symbol: mood.label for symbol, mood in moods.items()} == {"AAPL": "positive", "MSFT": "negative"}
    assert moods["AAPL"].symbol == "AAPL"
    assert list(service.calls[0][1].texts) == ["shares up", "shares slip"]


@pytest.mark.parametrize("method", ["predict", "sentiment", "indicators", "analyze", "watch", "status", "stream"])
def test_signatures_are_short_enough_to_read_in_help(method: str) -> None:
    for kind in (Client, AsyncClient):
        assert len(str(inspect.signature(getattr(kind, method)))) < 400
        assert "collections.abc" not in str(inspect.signature(getattr(kind, method)))


def test_a_session_by_time_needs_the_times_of_its_bars() -> None:
    forecast = market_inference.ForecastEvery(5, by_time=True)
    with pytest.raises(ArgumentError, match="times: the forecast is by time"):
        Record("A", CLOSES, None, (), forecast, "lossless", 100)
    record = Record("A", CLOSES, range(10**18, 10**18 + len(CLOSES)), (), forecast, "lossless", 100)
    assert record.open().open.forecast.by_time
    with pytest.raises(ArgumentError, match="time: the session's forecast is by time"):
        record.append(1.0, None, None)
    assert record.append(1.0, 2 * 10**18, None).bar.time == 2 * 10**18
