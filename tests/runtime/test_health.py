"""The health service lists every service without a key, and logs nothing."""

import logging

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from runtime.health import LIVE, Health

SERVING = health_pb2.HealthCheckResponse.SERVING


async def test_every_service_is_listed(caplog):
    server = grpc.aio.server()
    health = Health()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        await health.set(LIVE, SERVING)
        with caplog.at_level(logging.INFO):
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                answer = await health_pb2_grpc.HealthStub(channel).List(health_pb2.HealthListRequest(), timeout=60)
        assert answer.statuses[LIVE].status == SERVING
        assert not caplog.records
    finally:
        await server.stop(None)
