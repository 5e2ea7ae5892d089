"""Alive is not ready: a gateway without replicas, or one that drains, is not restarted for it."""

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from market_inference.contract import methods
from market_inference.contract.generated import exchange_pb2
from market_inference.contract.generated import inference_pb2 as pb
from runtime.health import LIVE
from tests.eventually import eventually_async

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_gateway_without_a_replica_lives_and_is_not_ready(start):
    async with start(0, replicas="127.0.0.1:9") as gateway:
        health = health_pb2_grpc.HealthStub(gateway.channel)
        assert (await health.Check(health_pb2.HealthCheckRequest(service=LIVE))).status == SERVING
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == NOT_SERVING


async def test_a_gateway_that_drains_lives_and_is_not_ready(start):
    async with start(1) as gateway, grpc.aio.insecure_channel(gateway.server.address) as channel:
        held = asyncio.Event()

        async def slow(envelope):
            await held.wait()
            return exchange_pb2.Reply(id=envelope.id, response=b"")

        gateway.replicas[0].behave = slow
        call = asyncio.ensure_future(gateway.predict())
        await gateway.replicas[0].came.wait()
        health = health_pb2_grpc.HealthStub(channel)
        live = health.Watch(health_pb2.HealthCheckRequest(service=LIVE))
        ready = health.Watch(health_pb2.HealthCheckRequest())
        assert [(await watch.read()).status for watch in (live, ready)] == [SERVING, SERVING]
        draining = asyncio.create_task(gateway.server.stop())
        assert (await ready.read()).status == NOT_SERVING
        assert gateway.server._health._server_status[LIVE] == SERVING
        held.set()
        await call
        live.cancel()
        ready.cancel()
        await draining


async def test_a_session_that_is_being_opened_when_the_drain_begins_is_refused(start):
    """Once open, the session would last until the end of the time for the drain."""
    opening = pb.WatchRequest(open=pb.WatchOpen(history=pb.Panel(close=[1.0] * 40)))
    async with start(1) as gateway:
        servicer = gateway.server.servicer
        call = gateway.channel.stream_stream(methods.METHODS["Watch"].path)(metadata=gateway.metadata)
        await call.wait_for_connection()
        await eventually_async(lambda: servicer.memory > 0)
        draining = asyncio.create_task(gateway.server.stop())
        await eventually_async(lambda: servicer._pipeline.draining)
        await call.write(opening.SerializeToString())
        assert (await call.code(), await call.details()) == (grpc.StatusCode.UNAVAILABLE, "the gateway is draining")
        await draining
        assert servicer.memory == gateway.replicas[0].asked == 0


@pytest.mark.usefixtures("one_day")
async def test_a_session_that_no_replica_opens_costs_nothing(start):
    opening = pb.WatchRequest(open=pb.WatchOpen(history=pb.Panel(close=[1.0] * 40)))
    async with start(0, replicas="127.0.0.1:9", units_per_day=2000) as gateway:
        call = gateway.channel.stream_stream(methods.METHODS["Watch"].path)(metadata=gateway.metadata)
        await call.write(opening.SerializeToString())
        assert await call.code() == grpc.StatusCode.UNAVAILABLE
        assert dict(await call.trailing_metadata())["x-quota-remaining"] == "2000"
