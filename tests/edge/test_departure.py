"""A client that closes the connection before the answer: the call to the gateway is cancelled.

The gateway here is a real gRPC server whose Predict never answers, so that the order of events is certain.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from edge.server import Server
from market_inference.contract.generated import inference_pb2
from market_inference.contract.generated.inference_pb2_grpc import MarketInferenceServiceServicer
from tests.edge.servers import edges, gateway
from tests.eventually import eventually_async

BODY = b'{"time_series": [1, 2, 3], "horizon": 1}'
POST = (
    b"POST /v1/predict HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer k\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
GET = b"GET /v1/status HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer k\r\n\r\n"
SECONDS = 60.0


class Slow(MarketInferenceServiceServicer):
    """Predict and GetStatus begin and never answer; ListModels accepts every key."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def ListModels(self, request, context):  # noqa: N802 -- the name in the contract
        return inference_pb2.ListModelsResponse()

    async def Predict(self, request, context):  # noqa: N802
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    GetStatus = Predict


@pytest.fixture
async def slow() -> AsyncIterator[tuple[Slow, Server]]:
    servicer = Slow()
    async with gateway(servicer) as address, edges(gateway=address) as start:
        yield servicer, await start()


@pytest.mark.parametrize(("request_bytes", "route"), [(POST, "/v1/predict"), (GET, "/v1/status")])
async def test_a_departed_client_cancels_the_call(slow, request_bytes, route):
    servicer, server = slow
    host, _, port = server.address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(request_bytes)
    async with asyncio.timeout(SECONDS):
        await servicer.begun.wait()
    assert not servicer.cancelled.is_set()
    writer.close()
    async with asyncio.timeout(SECONDS):
        await servicer.cancelled.wait()
    counted = {"route": route, "status": "499"}
    registry = server._metrics.registry
    assert await eventually_async(lambda: registry.get_sample_value("market_edge_requests_total", counted)) == 1
    refused = {"route": route, "reason": "CANCELLED"}
    assert registry.get_sample_value("market_edge_refusals_total", refused) == 1
