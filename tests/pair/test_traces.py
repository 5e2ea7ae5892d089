"""The spans of requests to the real pair, as received by a real collector."""

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from opentelemetry.proto.trace.v1 import trace_pb2

from market_inference import errors

GATEWAY, INFERENCE = "market-gateway", "market-inference"
PREDICT = "market.inference.v1.MarketInferenceService/Predict"
EXCHANGE = "market.inference.v1.ExchangeService/Exchange predict"
VALUES = np.linspace(100, 130, 60)
SECRET = "Profit rose sharply at a company that nobody shall read of"  # noqa: S105  # a text, looked for in spans


def attributes(span: trace_pb2.Span) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def parent_of_a_trace() -> tuple[bytes, str]:
    """The id of a new trace and a traceparent with this id."""
    trace_id = secrets.token_bytes(16)
    return trace_id, f"00-{trace_id.hex()}-{secrets.token_hex(8)}-01"


def complete(collector: Any, trace_id: bytes, names: set[str]) -> Any:
    """Wait for the spans of a trace; returns the gateway's spans and the inference service's spans."""
    return collector.wait(
        lambda: (
            (gateway, inference)
            if (gateway := collector.spans(GATEWAY, trace_id))
            and names <= (inference := collector.spans(INFERENCE, trace_id)).keys()
            else None
        )
    )


def test_spans_from_caller_to_device_have_the_right_parents(observed, collector, active_span):
    with observed.client() as client:
        client.predict(VALUES, horizon=3, request_id="traced-1")
    trace_id = active_span.trace_id.to_bytes(16)
    gateway, inference = complete(collector, trace_id, {EXCHANGE, "queue", "device", "encode"})
    [call], [request] = gateway[PREDICT], inference[EXCHANGE]
    [queue], [device], [encode] = inference["queue"], inference["device"], inference["encode"]
    assert call.parent_span_id == active_span.span_id.to_bytes(8)
    assert request.parent_span_id == call.span_id
    assert {part.parent_span_id for part in (queue, device, encode)} == {request.span_id}
    assert call.kind == request.kind == trace_pb2.Span.SPAN_KIND_SERVER
    told = attributes(call)
    assert (told["rpc.system.name"], told["rpc.method"], told["rpc.response.status_code"]) == ("grpc", PREDICT, "OK")
    assert (told["market.request_id"], told["market.client"]) == ("traced-1", "development")
    assert call.start_time_unix_nano <= call.end_time_unix_nano
    order = [request.start_time_unix_nano, queue.start_time_unix_nano, device.start_time_unix_nano]
    order += [device.end_time_unix_nano, encode.start_time_unix_nano, request.end_time_unix_nano]
    assert order == sorted(order)


def test_a_batch_is_a_separate_trace_linked_with_the_requests(observed, collector):
    asked = dict(parent_of_a_trace() for _ in range(8))
    with observed.client() as client, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda parent: client.predict(VALUES, horizon=3, traceparent=parent), asked.values()))
    for trace_id in asked:
        inference = complete(collector, trace_id, {EXCHANGE, "device"})[1]
        [device], [request] = inference["device"], inference[EXCHANGE]
        [link] = device.links
        [batch] = collector.wait(lambda link=link: collector.spans(INFERENCE, link.trace_id).get("batch forecast"))
        assert batch.span_id == link.span_id
        assert not batch.parent_span_id
        assert batch.trace_id not in asked
        assert (trace_id, request.span_id) in {(one.trace_id, one.span_id) for one in batch.links}
        told = attributes(batch)
        assert told["market.items"] >= told["market.requests"] >= len(batch.links) >= 1
        assert (told["market.engine"], told["market.model"]) == ("forecast", "auto")
        length = batch.end_time_unix_nano - batch.start_time_unix_nano
        assert length == pytest.approx(device.end_time_unix_nano - device.start_time_unix_nano, abs=2000)


def test_requests_of_a_stream_are_children_of_the_stream(observed, collector, active_span):
    async def ask() -> None:
        async with observed.async_client() as client, client.stream() as stream:
            await asyncio.gather(*(stream.predict(VALUES, horizon=2) for _ in range(3)))

    asyncio.run(ask())
    trace_id = active_span.trace_id.to_bytes(16)
    stream = PREDICT.replace("Predict", "Stream")
    gateway = collector.wait(
        lambda: found if {stream, PREDICT} <= (found := collector.spans(GATEWAY, trace_id)).keys() else None
    )
    [whole] = gateway[stream]
    assert len(gateway[PREDICT]) == 3
    assert {item.parent_span_id for item in gateway[PREDICT]} == {whole.span_id}
    assert {item.kind for item in gateway[PREDICT]} == {trace_pb2.Span.SPAN_KIND_INTERNAL}


def test_a_failure_has_a_code_and_only_internal_errors_mark_the_span_as_error(observed, collector):
    trace_id, parent = parent_of_a_trace()
    with observed.client() as client, pytest.raises(errors.InvalidRequestError):
        client.predict([1.0], horizon=1, traceparent=parent)
    [call] = collector.wait(lambda: collector.spans(GATEWAY, trace_id).get(PREDICT))
    told = attributes(call)
    assert (told["rpc.response.status_code"], told["market.reason"]) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert call.status.code == trace_pb2.Status.STATUS_CODE_UNSET


def test_unsampled_requests_texts_and_keys_are_never_exported(observed, collector):
    unrecorded, parent = parent_of_a_trace()
    recorded, other = parent_of_a_trace()
    with observed.client() as client:
        client.sentiment(SECRET, traceparent=parent[:-2] + "00")
        client.sentiment(SECRET)
        client.sentiment(SECRET, traceparent="no traceparent at all")
        client.sentiment(SECRET, traceparent=other)
    complete(collector, recorded, {"device"})
    sentiments = [span for at, span in collector.received if at == GATEWAY and span.name.endswith("AnalyzeSentiment")]
    assert [span.trace_id for span in sentiments] == [recorded]
    assert unrecorded not in {span.trace_id for _, span in collector.received}
    everything = "".join(str(span) for _, span in collector.received)
    assert observed.key not in everything
    assert "nobody" not in everything
