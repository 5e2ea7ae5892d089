"""Alive is not ready: a service that loads its models, or drains, is not restarted for it."""

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inference.config import Config
from inference.server import Server
from runtime.health import LIVE
from tests.eventually import eventually_async

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def test_the_service_lives_from_its_start_to_its_end_and_is_ready_in_between(monkeypatch):
    looked, load = asyncio.Event(), Server._load

    async def load_later(server):
        await looked.wait()
        await load(server)

    monkeypatch.setattr(Server, "_load", load_later)
    server = Server(Config(device="cpu", listen="127.0.0.1:0", metrics_listen="127.0.0.1:0"))
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        live, ready = (health.Watch(health_pb2.HealthCheckRequest(service=service)) for service in (LIVE, ""))
        assert (await live.read()).status == SERVING
        assert (await ready.read()).status == NOT_SERVING
        looked.set()
        assert (await ready.read()).status == SERVING
        stopping = asyncio.create_task(server.stop())
        assert (await ready.read()).status == NOT_SERVING
        for engine in server.parts.catalog.engines:
            statuses, name = server._health._server_status, f"market.inference.engine.{engine}"
            await eventually_async(lambda statuses=statuses, name=name: statuses[name] == NOT_SERVING)
        assert server._health._server_status[LIVE] == SERVING
        await stopping


async def test_compressed_requests_are_refused():
    server = Server(Config(device="cpu", listen="127.0.0.1:0", metrics_listen="127.0.0.1:0"))
    await server.start()
    async with grpc.aio.insecure_channel(server.address, compression=grpc.Compression.Gzip) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="Compression algorithm 'gzip' is disabled"):
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    await server.stop()
