"""Bad input gets a typed error with field, limit and request id. Neither the device nor other requests notice."""

import math
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from market_inference.contract import methods
from market_inference.contract.generated import inference_pb2 as pb

GOOD = [100.0 + math.sin(i) for i in range(40)]
CLOSES = pb.Panel(close=GOOD)
CODE = grpc.StatusCode


def predict(**changes: Any) -> pb.PredictRequest:
    return pb.PredictRequest(**{"series": [pb.Series(values=GOOD)], "horizon": 3, **changes})


def indicators(*specs: pb.IndicatorSpec) -> pb.ComputeIndicatorsRequest:
    return pb.ComputeIndicatorsRequest(panels=[CLOSES], indicators=specs)


def texts(*items: str) -> pb.AnalyzeSentimentRequest:
    return pb.AnalyzeSentimentRequest(texts=items)


# request, code, reason, field, words that the error must say
BAD = {
    "series of 29": (
        predict(series=[pb.Series(values=GOOD[:29])]),
        CODE.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        "series[0].values",
        "min 30, got 29",
    ),
    "series of 10,001": (
        predict(series=[pb.Series(values=[1.0] * 10_001)]),
        CODE.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        "series[0].values",
        "max 10000, got 10001",
    ),
    "NaN": (
        predict(series=[pb.Series(values=[*GOOD, math.nan])]),
        CODE.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        "series[0].values[40]",
        "finite",
    ),
    "inf": (
        predict(series=[pb.Series(values=[*GOOD, math.inf])]),
        CODE.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        "series[0].values[40]",
        "finite",
    ),
    "horizon 0": (
        predict(horizon=0),
        CODE.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        "horizon",
        "greater than or equal to 1",
    ),
    "horizon 366": (
        predict(horizon=366),
        CODE.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        "horizon",
        "less than or equal to 365",
    ),
    "0 texts": (texts(), CODE.INVALID_ARGUMENT, "INVALID_REQUEST", "texts", "min 1, got 0"),
    "101 texts": (texts(*["a"] * 101), CODE.INVALID_ARGUMENT, "INVALID_REQUEST", "texts", "max 100, got 101"),
    "a text of 10,001": (
        texts("x" * 10_001),
        CODE.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        "texts[0]",
        "max 10000 characters, got 10001",
    ),
    "unequal OHLCV": (
        pb.ComputeIndicatorsRequest(
            panels=[pb.Panel(high=GOOD[1:], close=GOOD)], indicators=[pb.IndicatorSpec(name="RSI")]
        ),
        CODE.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        "panels[0].high",
        "40, got 39",
    ),
    "low above high": (
        pb.ComputeIndicatorsRequest(
            panels=[pb.Panel(low=[3.0], high=[2.0], close=[2.5])], indicators=[pb.IndicatorSpec(name="RSI")]
        ),
        CODE.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        "panels[0].low[0]",
        "low must not exceed",
    ),
    "unknown indicator": (
        indicators(pb.IndicatorSpec(name="RSY")),
        CODE.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        "indicators[0].name",
        "did you mean 'RSI'?",
    ),
    "unknown parameter": (
        indicators(pb.IndicatorSpec(name="RSI", params={"period": 3})),
        CODE.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        'indicators[0].params["period"]',
        "RSI takes timeperiod",
    ),
    "parameter out of range": (
        indicators(pb.IndicatorSpec(name="SMA"), pb.IndicatorSpec(name="RSI", params={"timeperiod": 1})),
        CODE.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        'indicators[1].params["timeperiod"]',
        "[2, 100000]",
    ),
    "missing column": (
        indicators(pb.IndicatorSpec(name="ATR")),
        CODE.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        "panels[0].high",
        "needs it",
    ),
    "unknown model": (
        predict(model="oracle"),
        CODE.NOT_FOUND,
        "UNKNOWN_MODEL",
        None,
        "no forecast model named 'oracle'",
    ),
}
METHODS = {
    pb.PredictRequest: "Predict",
    pb.AnalyzeSentimentRequest: "AnalyzeSentiment",
    pb.ComputeIndicatorsRequest: "ComputeIndicators",
}


def details(error: grpc.RpcError) -> dict[str, Message]:
    """The google.rpc details of an error by short name, and the status."""
    sent = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(sent["grpc-status-details-bin"])
    found: dict[str, Message] = {"status": status}
    for kind in ("BadRequest", "ErrorInfo", "RequestInfo", "RetryInfo"):
        message = getattr(error_details_pb2, kind)()
        if any(detail.Unpack(message) for detail in status.details):
            found[kind] = message
    assert sent["x-request-id"] == found["RequestInfo"].request_id
    return found


@pytest.mark.parametrize(("message", "code", "reason", "field", "words"), BAD.values(), ids=BAD)
def test_bad_input_gets_a_typed_error_and_no_batch_runs(running, message, code, reason, field, words):
    batches = running.metric("inference", "market_inference_batch_items_count")
    with pytest.raises(grpc.RpcError) as caught:
        metadata = (*running.metadata, ("x-request-id", "bad-1"))
        getattr(running.stub, METHODS[type(message)])(message, metadata=metadata, timeout=60)
    error = caught.value
    assert error.code() is code
    assert words in error.details()
    found = details(error)
    assert found["ErrorInfo"].reason == reason
    assert found["RequestInfo"].request_id == "bad-1"
    if field is not None:
        assert found["BadRequest"].field_violations[0].field == field
    assert running.metric("inference", "market_inference_batch_items_count") == batches


@pytest.mark.parametrize(
    "metadata",
    [(), (("x-api-key", "mi_wrong_key"),), (("authorization", "Basic abc"),)],
    ids=["none", "wrong", "basic"],
)
def test_without_a_valid_key_nothing_is_served(running, metadata):
    for call, message in ((running.stub.Predict, predict()), (running.stub.GetStatus, pb.GetStatusRequest())):
        with pytest.raises(grpc.RpcError) as caught:
            call(message, metadata=metadata, timeout=60)
        assert caught.value.code() is CODE.UNAUTHENTICATED
        assert "key" in caught.value.details()
        assert details(caught.value)["ErrorInfo"].reason == "UNAUTHENTICATED"


def test_a_message_over_the_limit_of_the_method_is_refused_with_the_limit(running):
    limit = methods.METHODS["AnalyzeSentiment"].max_request_bytes
    raw = (
        pb.AnalyzeSentimentRequest(texts=["x"], model="").SerializeToString()
        + b"\x92\x01"
        + _varint(limit)
        + bytes(limit)
    )
    with pytest.raises(grpc.RpcError) as caught:
        running.channel.unary_unary(methods.METHODS["AnalyzeSentiment"].path)(
            raw, metadata=running.metadata, timeout=60
        )
    assert caught.value.code() is CODE.RESOURCE_EXHAUSTED
    assert f"max {limit} bytes, got {len(raw)}" in caught.value.details()


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def test_a_message_over_every_limit_is_refused_by_the_transport(running):
    call = running.channel.unary_unary(methods.METHODS["Predict"].path)
    with pytest.raises(grpc.RpcError) as caught:
        call(bytes(methods.MAX_REQUEST_BYTES + 1), metadata=running.metadata, timeout=60)
    assert caught.value.code() is CODE.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("raw", [b"\xff" * 64, b"\x0a\xff\xff\xff\xff\x0f", b"garbage"])
def test_garbage_bytes_are_an_invalid_request(running, raw):
    call = running.channel.unary_unary(methods.METHODS["Predict"].path)
    with pytest.raises(grpc.RpcError) as caught:
        call(raw, metadata=running.metadata, timeout=60)
    assert caught.value.code() is CODE.INVALID_ARGUMENT
    assert details(caught.value)["ErrorInfo"].reason == "INVALID_REQUEST"


def test_a_past_deadline_is_exceeded_at_once(running):
    with pytest.raises(grpc.RpcError) as caught:
        running.stub.Predict(predict(), metadata=running.metadata, timeout=-1)
    assert caught.value.code() is CODE.DEADLINE_EXCEEDED


def test_one_bad_series_among_several_fails_alone(running):
    request = predict(
        series=[
            pb.Series(symbol="A", values=GOOD),
            pb.Series(symbol="B", values=GOOD[:3]),
            pb.Series(symbol="C", values=GOOD),
        ]
    )
    answer = running.stub.Predict(request, metadata=running.metadata, timeout=60)
    assert [one.WhichOneof("result") for one in answer.forecasts] == ["forecast", "error", "forecast"]
    assert [one.symbol for one in answer.forecasts] == ["A", "B", "C"]
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in answer.forecasts[1].error.details)
    assert bad.field_violations[0].field == "series[1].values"
    alone = running.stub.Predict(
        predict(series=[pb.Series(symbol="C", values=GOOD)]), metadata=running.metadata, timeout=60
    )
    assert list(alone.forecasts[0].forecast.quantiles) == list(answer.forecasts[2].forecast.quantiles)


def test_the_other_parts_of_analyze_are_answered_when_one_fails(running):
    request = pb.AnalyzeRequest(
        predict=predict(model="oracle"),
        sentiment=texts("Profit rises."),
        indicators=indicators(pb.IndicatorSpec(name="RSI", last=1)),
    )
    answer = running.stub.Analyze(request, metadata=running.metadata, timeout=60)
    assert answer.WhichOneof("predict_result") == "predict_error"
    assert answer.sentiment.sentiments[0].sentiment.chunks == 1
    assert len(answer.indicators.panels[0].indicators.indicators[0].outputs[0].values) == 1


def test_neither_keys_nor_texts_nor_series_reach_a_log(running):
    # log() waits until the lines of these calls are written.
    running.stub.AnalyzeSentiment(texts("Zanzibar Widgets soars"), metadata=running.metadata, timeout=60)
    running.stub.Predict(
        predict(series=[pb.Series(symbol="S", values=[31337.25] * 40)]), metadata=running.metadata, timeout=60
    )
    with pytest.raises(grpc.RpcError):
        running.stub.Predict(predict(), metadata=(("x-api-key", "mi_abc_guessedsecret"),), timeout=60)
    for service in ("gateway", "inference"):
        log = running.log(service)
        for secret in (running.key, "guessedsecret", "Zanzibar", "31337"):
            assert secret not in log
    assert '"code":"UNAUTHENTICATED"' in running.log("gateway")
