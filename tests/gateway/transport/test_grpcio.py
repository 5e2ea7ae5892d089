"""The default transport: its port, and callers without credentials, without requests, or with too many pings."""

import asyncio
import contextlib
import gc
import logging
import socket
import struct
from collections import Counter

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc
from grpc_status import rpc_status

from gateway import workers
from gateway.access import reflection
from gateway.calls.call import Call
from gateway.transport import grpcio
from gateway.transport.interface import LIMITS
from market_inference.contract import methods
from market_inference.contract.generated import inference_pb2 as pb
from runtime.listen import CannotListenError, bind, split
from tests.eventually import eventually_async
from tests.gateway.access.test_reflection import LIST, code_of
from tests.gateway.conftest import GOOD
from tests.gateway.test_hostile import CALL, PREFACE, frame, headers

DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
END_STREAM = 1
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
PINGED = frame(PING, 0, 0, b"12345678")


@pytest.fixture
def default(start):
    return lambda count=1, **settings: start(count, transport="grpcio", **settings)


class Connection:
    """A raw HTTP/2 connection, which counts the frames of the server by type."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.frames: Counter[int] = Counter()
        self.ended: set[int] = set()
        # By call, 0 for the connection: the bytes that the server takes beyond the first window.
        self.windows: Counter[int] = Counter()
        self.first_window = 65_535

    async def __aenter__(self):
        host, port = split(self._address)
        self._reader, self._writer = await asyncio.open_connection(host, port)
        self.send(PREFACE + frame(4, 0, 0))
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._writer.close()

    def send(self, raw: bytes) -> None:
        self._writer.write(raw)

    async def _read(self) -> None:
        while head := await self._reader.read(9):
            while len(head) < 9:
                head += await self._reader.readexactly(9 - len(head))
            body = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
            stream = int.from_bytes(head[5:9], "big")
            self.frames[head[3]] += 1
            if head[3] == RESET or (head[3] == HEADERS and head[4] & END_STREAM):
                self.ended.add(stream)
            elif head[3] == WINDOW:
                self.windows[stream] += int.from_bytes(body, "big")
            elif head[3] == SETTINGS:
                self.first_window = dict(struct.iter_unpack(">HI", body)).get(4, self.first_window)

    async def until(self, condition) -> None:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110 -- the other end is another thread
                await asyncio.sleep(0.01)


async def test_calls_without_a_key_are_refused_before_their_request_comes(default):
    async with default() as gateway, Connection(gateway.server.address) as connection:
        streams = range(1, 201, 2)
        for stream in streams:
            connection.send(frame(HEADERS, 4, stream, CALL))
        await connection.until(lambda: connection.ended == set(streams))
        await eventually_async(lambda: not gateway.server.servicer.in_flight)


async def test_no_ended_call_is_left_for_the_collector(default):
    async with default() as gateway:
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                await gateway.predict()
            # By type(): some objects of other people answer isinstance() with a warning.
            await eventually_async(lambda: not [found for found in gc.get_objects() if type(found) is Call])
        finally:
            gc.enable()


@pytest.fixture
def came(monkeypatch):
    """The calls of strangers that have come. After the first refusal the next one is due in hours."""
    monkeypatch.setattr(grpcio, "STRANGERS_SHARE", 1e-9)
    found, end = [], grpcio._Strangers.end
    monkeypatch.setattr(grpcio._Strangers, "end", lambda *given: found.append(1) or end(*given))
    return found


async def test_strangers_wait_for_their_turn_and_others_are_served_meanwhile(default, came, caplog):
    paths = [
        f"/market.inference.v1.MarketInferenceService/{name}" for name in ("Predict", "Stream", "Watch", "Nothing")
    ]
    async with default() as gateway:
        async with Connection(gateway.server.address) as connection:
            for stream in range(1, 81, 2):
                known = {"x-api-key": f"mi_wrong_{stream}"} if stream % 3 else {}
                fields = {"_method": "POST", "_scheme": "http", "_path": paths[stream // 2 % 4], "_authority": "x"}
                fields |= {"te": "trailers", "content-type": "application/grpc", **known}
                connection.send(frame(HEADERS, 4, stream, headers(**fields)))
            await eventually_async(lambda: len(came) == 40)
            for _ in range(5):
                await gateway.predict()
            assert len(connection.ended) <= 1
        await gateway.predict()
        assert sum(record.name == "gateway.audit" for record in caplog.records) <= 1


async def test_a_call_that_nobody_reads_takes_no_more_than_its_first_window(default, monkeypatch):
    monkeypatch.setattr(grpcio, "STRANGERS_SHARE", 1e-6)
    streams, piece, sent = range(1, 2 * LIMITS["max_concurrent_streams"], 2), 16_384, 0
    async with default() as gateway, Connection(gateway.server.address) as connection:
        for stream in streams:
            connection.send(frame(HEADERS, 4, stream, CALL))
        for stream in streams:
            for message in (struct.pack(">BI", 0, methods.MAX_REQUEST_BYTES).ljust(piece), *[bytes(piece)] * 2):
                sent += piece
                await connection.until(lambda sent=sent: sent <= 65_535 + connection.windows[0])
                connection.send(frame(DATA, 0, stream, message))
        connection.send(PINGED)
        await connection.until(lambda: connection.frames[PING])
        assert set(connection.windows) == {0}
        assert connection.first_window <= grpcio.WINDOW_BYTES


async def test_strangers_that_wait_are_refused_once_the_gateway_stops(default, came):
    async with default() as gateway:
        calls = [gateway.predict(metadata=()) for _ in range(5)]
        codes = asyncio.gather(*(call.code() for call in calls))
        await eventually_async(lambda: len(came) == 5)
        gateway.server._transport._strangers.close()
        assert set(await codes) == {grpc.StatusCode.UNAUTHENTICATED}
        # Such a call may have come before the end began.
        assert await gateway.predict(metadata=()).code() is grpc.StatusCode.UNAUTHENTICATED


async def test_calls_that_strangers_reset_keep_their_places_until_their_turn(default, came):
    most, count = LIMITS["max_concurrent_streams"], 1000
    async with default() as gateway, Connection(gateway.server.address) as connection:
        await connection.until(lambda: connection.frames[SETTINGS])
        connection.send(frame(SETTINGS, 1, 0))  # before this, no more calls than `most` in all
        reset = (8).to_bytes(4, "big")
        for stream in range(1, 2 * count, 2):
            connection.send(frame(HEADERS, 4, stream, CALL) + frame(RESET, 0, stream, reset))
        connection.send(PINGED)
        await connection.until(lambda: connection.frames[PING])
        await gateway.predict()  # after all calls that gRPC has taken before
        # As many calls again may wait to be freed; gRPC takes one above, and the first is refused and freed.
        assert 2 <= len(came) <= 2 * most + 2


async def test_more_strangers_than_may_wait_are_refused_at_once(default, came, monkeypatch):
    monkeypatch.setattr(grpcio, "MOST_STRANGERS", 5)
    async with default() as gateway, Connection(gateway.server.address) as connection:
        for stream in range(1, 41, 2):
            connection.send(frame(HEADERS, 4, stream, CALL))
        await connection.until(lambda: len(connection.ended) >= 15)
        assert len(connection.ended) <= 16


@pytest.mark.parametrize("refused", [False, True])
async def test_a_client_with_more_calls_than_a_connection_carries_is_never_above_the_limit(default, refused):
    async with default() as gateway:
        request = pb.PredictRequest() if refused else GOOD
        codes: Counter[grpc.StatusCode] = Counter()

        async def caller() -> None:
            for _ in range(5):
                call = gateway.predict(request)
                codes[await call.code()] += 1

        await asyncio.gather(*(caller() for _ in range(3 * LIMITS["max_concurrent_streams"])))
    assert set(codes) == {grpc.StatusCode.INVALID_ARGUMENT if refused else grpc.StatusCode.OK}


async def test_calls_whose_request_does_not_come_end_in_time(default, monkeypatch):
    monkeypatch.setattr(grpcio, "REQUEST_SECONDS", 0.1)
    async with default() as gateway, Connection(gateway.server.address) as connection:
        connection.send(frame(HEADERS, 4, 1, CALL + headers(**{"x-api-key": gateway.secret})))
        await connection.until(lambda: connection.ended == {1})
        monkeypatch.undo()  # a good request may take as long on a busy machine
        await gateway.predict()


async def test_calls_of_a_client_that_leaves_before_its_requests_are_cancelled(default, caplog):
    async with default() as gateway:
        mine, count = CALL + headers(**{"x-api-key": gateway.secret}), 50
        caplog.set_level(logging.INFO, "gateway.request")
        opened = gateway.server.servicer.open
        came = []
        gateway.server.servicer.open = lambda *given: came.append(1) or opened(*given)
        async with Connection(gateway.server.address) as connection:
            connection.send(b"".join(frame(HEADERS, 4, stream, mine) for stream in range(1, 2 * count, 2)))
            await eventually_async(lambda: len(came) == count)
        await eventually_async(lambda: len(caplog.records) >= count)
    assert {record.fields["code"] for record in caplog.records} == {"CANCELLED"}


async def test_a_call_that_is_closed_without_a_request_ends_in_time(default, monkeypatch):
    monkeypatch.setattr(grpcio, "REQUEST_SECONDS", 0.1)
    async with default() as gateway, Connection(gateway.server.address) as connection:
        connection.send(frame(HEADERS, 4 | END_STREAM, 1, CALL + headers(**{"x-api-key": gateway.secret})))
        await connection.until(lambda: connection.ended == {1})


async def test_a_connection_opens_no_more_calls_at_once_than_the_limit(default):
    most = LIMITS["max_concurrent_streams"]
    async with default() as gateway, Connection(gateway.server.address) as connection:
        mine = CALL + headers(**{"x-api-key": gateway.secret})
        connection.send(b"".join(frame(HEADERS, 4, stream, mine) for stream in range(1, 4 * most, 2)))
        await connection.until(lambda: connection.frames[RESET] == most)
        assert connection.ended == set(range(2 * most + 1, 4 * most, 2))


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate], ids=lambda kind: kind.name)
async def test_compressed_requests_are_refused_at_the_headers(default, compression):
    async with default() as gateway:
        asked = {"metadata": gateway.metadata, "compression": compression}
        # Some kilobytes on the wire, 8 MB once decompressed.
        huge = pb.PredictRequest(series=[pb.Series(symbol="A" * 8_000_000)])
        for call in (
            gateway.stub.Predict(huge, **asked),
            gateway.stub.Stream(**asked),
            gateway.stub.Watch(**asked),
            health_pb2_grpc.HealthStub(gateway.channel).Check(health_pb2.HealthCheckRequest(), compression=compression),
        ):
            assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
            assert await call.details() == f"Compression algorithm '{compression.name.lower()}' is disabled."
        assert await gateway.predict()


async def test_a_call_waits_behind_the_calls_of_some_connections_only(default, monkeypatch):
    """Each queue has handlers of its own. The kernel chooses a queue for each connection."""
    served = Counter()
    known = grpcio._known

    def counted(*given):
        handler = known(*given)

        async def serve(*call):
            served[handler] += 1
            return await handler(*call)

        return serve

    monkeypatch.setattr(grpcio, "_known", counted)
    async with default() as gateway, contextlib.AsyncExitStack() as connections:
        for _ in range(10 * grpcio.QUEUES):
            connection = await connections.enter_async_context(Connection(gateway.server.address))
            connection.send(frame(HEADERS, 4, 1, CALL))
        await eventually_async(lambda: served.total() == 10 * grpcio.QUEUES)
        assert len(served) > grpcio.QUEUES // 2


async def test_a_call_does_not_wait_behind_calls_of_another_method(default, came, monkeypatch):
    before, refuse = [], grpcio._Strangers.refuse
    monkeypatch.setattr(grpcio._Strangers, "refuse", lambda *given: before.append(len(came)) or refuse(*given))
    others = CALL.replace(b"/Predict", b"/Nothing")
    async with default() as gateway, Connection(gateway.server.address) as connection:
        calls = [frame(HEADERS, 4, stream, others) for stream in range(1, 199, 2)]
        connection.send(b"".join(calls) + frame(HEADERS, 4, 199, CALL))
        await eventually_async(lambda: len(came) == 100)
        assert before[0] < 80


async def test_a_queue_of_all_connections_drops_no_call_of_a_burst(default, monkeypatch):
    """Systems other than Linux have one queue."""
    monkeypatch.setattr(grpcio, "QUEUES", 1)
    async with default(1) as gateway, contextlib.AsyncExitStack() as channels:
        calls = []
        for number in range(11):
            options = [*OWN_CONNECTION, ("number", number)]
            channel = await channels.enter_async_context(grpc.aio.insecure_channel(gateway.server.address, options))
            await channel.channel_ready()
            predict = channel.unary_unary(methods.METHODS["Predict"].path)
            calls += [predict(GOOD.SerializeToString(), metadata=gateway.metadata) for _ in range(90)]
        assert {await call.code() for call in calls} == {grpc.StatusCode.OK}


async def test_strangers_share_the_bounds_of_reflection_over_all_queues(default, monkeypatch):
    monkeypatch.setattr(reflection, "BURST", 5.0)
    monkeypatch.setattr(reflection, "REQUESTS_PER_SECOND", 1e-9)
    codes: Counter[grpc.StatusCode] = Counter()
    async with default() as gateway:
        for _ in range(3 * grpcio.QUEUES):
            async with grpc.aio.insecure_channel(gateway.server.address, OWN_CONNECTION) as channel:
                ask = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
                codes[await code_of(ask(iter([LIST])))] += 1
    assert codes == {grpc.StatusCode.OK: 5, grpc.StatusCode.RESOURCE_EXHAUSTED: 3 * grpcio.QUEUES - 5}


async def test_a_port_of_another_gateway_is_not_shared(default):
    async with default() as gateway:
        with pytest.raises(CannotListenError, match=f"cannot listen on {gateway.server.address}: in use"):
            async with default(0, listen=gateway.server.address):
                pass
        with socket.socket() as holder, pytest.raises(CannotListenError, match="in use"):
            bind(lambda address: workers._hold(holder, address), gateway.server.address)
    with socket.socket() as holder, socket.socket() as other:
        address = bind(lambda address: workers._hold(holder, address), "127.0.0.1:0")
        with pytest.raises(CannotListenError, match="in use"):
            bind(lambda address: workers._hold(other, address), address)
        holder.close()
        assert bind(lambda address: workers._hold(other, address), address) == address


async def test_thousands_of_calls_without_a_request_are_nobody_elses_problem(default):
    async with default() as gateway:
        connections = [socket.create_connection(split(gateway.server.address), timeout=60) for _ in range(3)]
        for connection in connections:
            flood = b"".join(frame(HEADERS, 4, stream, CALL) for stream in range(1, 2001, 2))
            await asyncio.to_thread(connection.sendall, PREFACE + frame(4, 0, 0) + flood)
        for _ in range(50):
            await gateway.predict()
        for connection in connections:
            connection.close()


async def test_a_client_may_ping_an_idle_connection_as_often_as_the_transport_says(default, monkeypatch):
    monkeypatch.setattr(grpcio, "PING_SECONDS", 0.05)
    async with default() as gateway, Connection(gateway.server.address) as connection:
        for count in range(1, 9):
            connection.send(PINGED)
            # The answer comes before the pause: the service never finds two pings at once.
            await connection.until(lambda count=count: connection.frames[PING] >= count)
            await asyncio.sleep(0.1)
        assert connection.frames[GOAWAY] == 0


async def test_a_client_that_pings_more_often_is_disconnected(default):
    async with default() as gateway, Connection(gateway.server.address) as connection:
        connection.send(PINGED * 8)
        await connection.until(lambda: connection.frames[GOAWAY])


async def test_an_rpc_that_does_not_exist_is_refused_with_details(default):
    async with default() as gateway:
        for path in ("/market.inference.v1.MarketInferenceService/Nothing", "/elsewhere.Service/Do"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await gateway.channel.unary_unary(path)(b"", metadata=(("x-request-id", "mine"),))
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            details = rpc_status.from_call(caught.value).details
            info, request = error_details_pb2.ErrorInfo(), error_details_pb2.RequestInfo()
            assert any(detail.Unpack(info) for detail in details)
            assert any(detail.Unpack(request) for detail in details)
            assert (info.reason, request.request_id) == ("UNIMPLEMENTED", "mine")
