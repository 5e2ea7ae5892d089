"""The gateway's metrics count the events of real calls."""

import asyncio
import threading
from importlib.metadata import version

import grpc
import pytest
from prometheus_client.openmetrics.exposition import generate_latest

from gateway.calls.call import Call
from gateway.calls.request import Request
from gateway.metrics import Metrics
from gateway.replicas.replica import STATES
from market_inference.contract import methods
from market_inference.contract.generated import exchange_pb2
from tests.eventually import eventually_async

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def value(gateway, name, **labels):
    return gateway.server._metrics.registry.get_sample_value(name, labels)


def timed(envelope):
    timing = exchange_pb2.Timing(queue_us=100, form_us=20, run_us=3000, encode_us=40, device_us=1000, batch_items=3)
    return exchange_pb2.Reply(id=envelope.id, response=b"", timing=timing)


async def test_phases_follow_each_other_and_add_up_to_the_whole(start):
    async with start(1) as gateway:
        gateway.replicas[0].behave = timed
        await gateway.predict()
        total = {"method": "Predict", "phase": "total"}
        await eventually_async(lambda: value(gateway, "market_gateway_request_phase_seconds_count", **total))

        def seconds(phase):
            series = {"method": "Predict", "phase": phase}
            assert value(gateway, "market_gateway_request_phase_seconds_count", **series) == 1
            return value(gateway, "market_gateway_request_phase_seconds_sum", **series)

        told = {"queue": 1e-4, "form": 2e-5, "device": 3e-3, "encode": 4e-5}
        assert {phase: seconds(phase) for phase in told} == pytest.approx(told)
        parts = sum(seconds(phase) for phase in (*told, "gateway", "transport"))
        assert parts == pytest.approx(max(seconds("total"), seconds("gateway") + sum(told.values())))
        assert seconds("gateway") > 0


async def test_an_answer_that_met_no_device_has_no_phases(start):
    async with start(1) as gateway:
        await gateway.predict()
        total, queue = ({"method": "Predict", "phase": phase} for phase in ("total", "queue"))
        await eventually_async(lambda: value(gateway, "market_gateway_request_phase_seconds_count", **total) == 1)
        assert value(gateway, "market_gateway_request_phase_seconds_count", **queue) is None


async def test_replicas_are_told_by_state(start):
    async with start(2) as gateway:

        def states():
            return {state: value(gateway, "market_gateway_replicas", state=state) for state in STATES}

        assert states() == {"ready": 2, "ejected": 0, "draining": 0, "away": 0}
        first, second = gateway.server.router.replicas
        for _ in range(5):
            first.failed()
        second.update_load(exchange_pb2.Load(draining=True))
        assert states() == {"ready": 0, "ejected": 1, "draining": 1, "away": 0}
        await gateway.replicas[0].stop()
        await gateway.replicas[1].stop()
        async with asyncio.timeout(60):
            while states()["away"] != 2:
                await gateway.server.router.wait_for_change()
        assert value(gateway, "market_gateway_known_replicas") == 2
        assert value(gateway, "market_gateway_ready_replicas") == 0


async def test_open_streams_and_the_limit_of_requests_in_flight_are_told(start):
    async with start(1, max_in_flight=77) as gateway:
        assert value(gateway, "market_gateway_in_flight_limit_requests") == 77
        call = gateway.stub.Stream(metadata=gateway.metadata)
        assert (await call.read()).HasField("credits")
        assert value(gateway, "market_gateway_open_streams", method="Stream") == 1
        assert value(gateway, "market_gateway_open_streams", method="Watch") == 0
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        await eventually_async(lambda: value(gateway, "market_gateway_open_streams", method="Stream") == 0)


@pytest.mark.parametrize(("flags", "named"), [("01", True), ("00", False)])
async def test_only_a_sampled_trace_is_named_by_the_time_of_its_request(start, flags, named):
    async with start(1) as gateway:
        parent = ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-{flags}")
        await gateway.predict(metadata=(*gateway.metadata, parent))
        counted = {"method": "Predict", "code": "OK"}
        await eventually_async(lambda: value(gateway, "market_gateway_requests_total", **counted))
        page = generate_latest(gateway.server._metrics.registry).decode()
        assert (f'# {{trace_id="{TRACE}"}}' in page) is named


async def test_the_process_and_its_version_are_told(start):
    async with start(1) as gateway:
        assert value(gateway, "market_gateway_build_info", version=version("market-inference")) == 1
        assert value(gateway, "process_resident_memory_bytes") > 1 << 20


def test_nothing_is_lost_or_counted_twice_when_it_is_looked_at_meanwhile():
    metrics = Metrics()
    good, bad = (Call(methods.METHODS[name], "r", 0.0, 1.0, size_bytes=10) for name in ("Predict", "Analyze"))
    request = Request([good])
    request.timing, request.attempts = exchange_pb2.Timing(batch_items=3), 3
    ended = threading.Event()

    def look():
        while not ended.is_set():
            metrics.registry.get_sample_value("market_gateway_resends_total")

    looking = threading.Thread(target=look)
    looking.start()
    for _ in range(5000):
        metrics.answered(good, "OK", "", 0.25)
        metrics.answered(bad, "INTERNAL", "BUG", 0.5)
    ended.set()
    looking.join(60)
    get = metrics.registry.get_sample_value
    assert get("market_gateway_requests_total", {"method": "Predict", "code": "OK"}) == 5000
    assert get("market_gateway_requests_total", {"method": "Analyze", "code": "INTERNAL"}) == 5000
    assert get("market_gateway_refusals_total", {"method": "Analyze", "reason": "BUG"}) == 5000
    assert get("market_gateway_request_bytes_total", {"method": "Predict"}) == 50_000
    assert get("market_gateway_resends_total") == 10_000
    total = {"method": "Predict", "phase": "total"}
    assert get("market_gateway_request_phase_seconds_count", total) == 5000
    assert get("market_gateway_request_phase_seconds_sum", total) == 1250
