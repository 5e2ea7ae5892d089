"""gRPC health is open to strangers, within bounds."""

import asyncio
import gc

import grpc
import pytest
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc

from gateway.access import probes
from gateway.access.probes import MOST_BYTES, MOST_READS, Probes
from runtime.health import Health

SERVING, NOT_SERVING = pb.HealthCheckResponse.SERVING, pb.HealthCheckResponse.NOT_SERVING
CHECK = "/grpc.health.v1.Health/Check"


@pytest.fixture
def health():
    return Health()


@pytest.fixture
async def channel(health):
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Probes(health),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield channel
    await server.stop(None)


async def test_every_method_answers_as_grpc_health_does(channel, health):
    stub = health_pb2_grpc.HealthStub(channel)
    await health.set("one", NOT_SERVING)
    assert (await stub.Check(pb.HealthCheckRequest())).status == SERVING
    assert (await stub.Check(pb.HealthCheckRequest(service="one"))).status == NOT_SERVING
    assert await stub.Check(pb.HealthCheckRequest(service="two")).code() is grpc.StatusCode.NOT_FOUND
    assert set((await stub.List(pb.HealthListRequest())).statuses) == {"", "one"}
    watch = stub.Watch(pb.HealthCheckRequest(service="one"))
    assert (await watch.read()).status == NOT_SERVING
    await health.set("one", SERVING)
    assert (await watch.read()).status == SERVING
    watch.cancel()


@pytest.mark.parametrize(
    "raw", [pb.HealthCheckRequest(service="x" * MOST_BYTES).SerializeToString(), b"\xff"], ids=["large", "damaged"]
)
@pytest.mark.parametrize("method", ["Check", "Watch"])
async def test_a_large_or_damaged_request_is_refused(channel, method, raw):
    call = channel.stream_stream(f"/grpc.health.v1.Health/{method}")()
    await call.write(raw)
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_few_requests_of_an_address_are_read_at_once_and_each_has_a_time_limit(channel, monkeypatch):
    reading: set[object] = set()
    most, read_within_bounds = 0, Probes._read

    class Counted:
        def __init__(self, context):
            self._context, self.peer, self.abort = context, context.peer, context.abort

        async def read(self):
            nonlocal most
            reading.add(self)
            most = max(most, len(reading))
            try:
                return await self._context.read()
            finally:
                reading.remove(self)

    with monkeypatch.context() as patched:
        patched.setattr(probes, "READ_SECONDS", 0.5)
        patched.setattr(Probes, "_read", lambda self, context: read_within_bounds(self, Counted(context)))
        silent = [channel.stream_unary(CHECK)() for _ in range(3 * MOST_READS)]
        codes = await asyncio.gather(*(call.code() for call in silent))
    assert set(codes) == {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert (most, len(reading)) == (MOST_READS, 0)
    assert await health_pb2_grpc.HealthStub(channel).Check(pb.HealthCheckRequest())


@pytest.mark.parametrize("method", ["Check", "Watch"])
async def test_a_request_that_does_not_come_leaves_nothing_behind(method, monkeypatch):
    """Each address left its semaphore until a garbage collection, which is rare in a gateway."""
    monkeypatch.setattr(probes, "READ_SECONDS", 0.05)
    served = Probes(Health())
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((served,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    gc.disable()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
            calls = [channel.stream_stream(f"/grpc.health.v1.Health/{method}")() for _ in range(MOST_READS + 1)]
            codes = await asyncio.gather(*(call.code() for call in calls))
            await server.stop(None)
            left = len(served._reads), served._streams.total()
    finally:
        gc.enable()
    assert set(codes) == {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert left == (0, 0)


async def test_the_streams_of_an_address_are_bounded_and_give_their_places_back(channel, monkeypatch):
    monkeypatch.setattr(probes, "MOST_STREAMS", (3, 2))
    watch = health_pb2_grpc.HealthStub(channel).Watch
    open_streams = [watch(pb.HealthCheckRequest()) for _ in range(2)]
    for stream in open_streams:
        assert (await stream.read()).status == SERVING
    with pytest.raises(grpc.aio.AioRpcError, match="max 3, and 2 of one address") as caught:
        await watch(pb.HealthCheckRequest()).read()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    open_streams[0].cancel()
    async with asyncio.timeout(60):
        while True:
            try:
                assert (await watch(pb.HealthCheckRequest()).read()).status == SERVING
            except grpc.aio.AioRpcError:  # the server has not seen the cancellation yet
                continue
            break
