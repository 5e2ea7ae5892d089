"""The native transport keeps the promises of the other one, and refuses to be asked for what it cannot do.

`make test-native` runs the gateway's, the pair's and the streaming tests on it as well.
"""

import asyncio
import json
import logging
import subprocess
import sys

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from pygrpc_native import EVENT_CALL, EVENT_CANCEL

from gateway.access import security
from gateway.access.security import ConfigurationError
from gateway.config import Config
from gateway.server import Server
from gateway.transport.native import NativeTransport
from market_inference.contract import errors, methods
from market_inference.contract.generated import exchange_pb2
from market_inference.contract.generated import inference_pb2 as pb
from tests.eventually import eventually_async
from tests.gateway.conftest import reply

GOOD = pb.PredictRequest(series=[pb.Series(values=[1.0, 2.0] * 20)], horizon=3)


@pytest.fixture
def native(start):
    return lambda count=1, **settings: start(count, transport="native", **settings)


async def test_a_call_is_answered_with_its_id_in_the_trailers(native):
    async with native() as gateway:
        call = gateway.predict(metadata=(*gateway.metadata, ("x-request-id", "mine")))
        assert (await call).request_id == "mine"
        assert dict(await call.trailing_metadata())["x-request-id"] == "mine"


async def test_an_error_comes_with_its_details(native):
    async with native() as gateway:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway.predict(pb.PredictRequest())
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        bad = error_details_pb2.BadRequest()
        details = rpc_status.from_call(caught.value).details
        assert any(detail.Is(bad.DESCRIPTOR) and detail.Unpack(bad) for detail in details)
        assert {violation.field for violation in bad.field_violations} == {"series", "horizon"}


async def test_a_wrong_key_is_refused_and_the_caller_named_in_the_audit(native, caplog):
    async with native() as gateway:
        with caplog.at_level(logging.WARNING), pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway.predict(metadata=(("x-api-key", "mi_nobody_knows"),))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        (line,) = [record.fields for record in caplog.records if record.name == "gateway.audit"]
        assert "127.0.0.1" in line["peer"]
        assert line["credential"] == "nobody"


async def test_a_caller_that_leaves_withdraws_its_request(native):
    async with native() as gateway:
        (replica,) = gateway.replicas
        replica.behave = lambda envelope: None
        call = gateway.predict()
        await replica.came.wait()
        call.cancel()
        await eventually_async(lambda: replica.withdrawn and not gateway.server.servicer.in_flight)


async def test_a_deadline_ends_the_call_and_the_request(native):
    async with native() as gateway:
        gateway.replicas[0].behave = lambda envelope: None
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway.predict(timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually_async(lambda: not gateway.server.servicer.in_flight)


async def test_health_reflection_and_streams_go_through_the_front_behind(native):
    async with native() as gateway:
        health = await health_pb2_grpc.HealthStub(gateway.channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        stream = gateway.stub.Stream(metadata=gateway.metadata)
        assert (await stream.read()).credits.in_flight
        series = [pb.Series(values=[1.0, 2.0] * 20)]
        item = pb.StreamItem(id=7, predict=pb.PredictRequest(series=series, horizon=3))
        await stream.write(pb.StreamRequest(requests=[item]))
        assert [answer.id for answer in (await stream.read()).answers] == [7]
        await stream.done_writing()


async def test_a_cancelled_stream_ends_no_other_stream_of_its_connection(native):
    async with native() as gateway:
        item = pb.StreamRequest(requests=[pb.StreamItem(id=1, predict=GOOD)])
        lasting = gateway.stub.Stream(metadata=gateway.metadata)
        await lasting.read()
        for _ in range(30):
            cancelled, after = (gateway.stub.Stream(metadata=gateway.metadata) for _ in range(2))
            await cancelled.read()
            await cancelled.write(item)
            cancelled.cancel()
            await after.read()
            await after.write(item)
            assert [answer.id for answer in (await after.read()).answers] == [1]
            await after.done_writing()
            assert await after.read() is grpc.aio.EOF
        await lasting.write(item)
        assert [answer.id for answer in (await lasting.read()).answers] == [1]
        lasting.cancel()


async def test_stopping_lets_calls_in_flight_end(native):
    async with native() as gateway:
        (replica,) = gateway.replicas
        release = asyncio.Event()

        async def slowly(envelope):
            await release.wait()
            return exchange_pb2.Reply(id=envelope.id, response=pb.PredictResponse(model="late").SerializeToString())

        replica.behave = slowly
        call = asyncio.ensure_future(gateway.predict())
        await replica.came.wait()
        stopping = asyncio.create_task(gateway.server.stop())
        await asyncio.sleep(0)  # the stop has begun
        release.set()
        assert (await call).model == "late"
        await stopping


async def test_a_request_above_the_limit_is_refused_with_the_limit(native):
    async with native() as gateway:
        send = gateway.channel.unary_unary(methods.METHODS["Predict"].path)
        with pytest.raises(grpc.aio.AioRpcError, match="request too large"):
            await send(b"\0" * (methods.METHODS["Predict"].max_request_bytes + 1), metadata=gateway.metadata)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"tls_certificate": "a.pem", "tls_key": "a.pem"}, "MARKET_GATEWAY_TLS_CERTIFICATE needs"),
        ({"max_connection_age": 60.0}, "MARKET_GATEWAY_MAX_CONNECTION_AGE needs"),
        ({"listen": "0.0.0.0:0", "allow_plaintext": True, "allow_development_key": True}, "BODIES_BOUNDED_IN_FRONT"),
    ],
)
async def test_what_it_cannot_do_is_refused(settings, why, tmp_path, monkeypatch):
    monkeypatch.setenv("MARKET_INFERENCE_STATE_DIR", str(tmp_path))
    monkeypatch.setattr(security.tls, "check", lambda files: None)
    with pytest.raises(ConfigurationError, match=why):
        Server(Config(transport="native", **settings))


async def test_limits_count_all_calls_of_a_crowd(native):
    async with native(max_in_flight_per_client=40) as gateway:
        gateway.replicas[0].behave = lambda envelope: None
        calls = [gateway.predict(timeout=100) for _ in range(300)]
        await eventually_async(lambda: [call.done() for call in calls].count(True), lambda done: done >= 260)
        refused = [call for call in calls if call.done()]
        assert {await call.code() for call in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert (len(refused), gateway.server.servicer.in_flight) == (260, 40)
        for call in calls:
            call.cancel()


def arrivals(numbers, metadata, peer="127.0.0.1:1"):
    """Events of the native server: calls of Predict with these numbers."""
    place = [method for method in methods.METHODS.values() if not method.streams].index(methods.METHODS["Predict"])
    return [(EVENT_CALL, number, place, GOOD.SerializeToString(), None, (metadata, peer, None)) for number in numbers]


@pytest.fixture
def started(monkeypatch):
    """The numbers of the calls, in turns of the event loop."""
    found = []
    real, real_one = NativeTransport._start_some, NativeTransport._start_one

    def some(front, count):
        found.append([])
        real(front, count)

    def one(front, waiting, waited):
        found[-1].append(waiting.number)
        real_one(front, waiting, waited)

    monkeypatch.setattr(NativeTransport, "_start_some", some)
    monkeypatch.setattr(NativeTransport, "_start_one", one)
    return found


async def test_a_call_waits_for_no_burst_of_another_client(native, started):
    async with native() as gateway:
        front, loop = gateway.server._transport, asyncio.get_running_loop()
        front._take(loop, arrivals(range(1000, 1300), gateway.metadata))
        front._take(loop, arrivals([2000], (), "127.0.0.2:1"))
        await eventually_async(lambda: sum(map(len, started)) == 301)
        assert 2000 in started[0][:2]
        assert max(map(len, started)) == 32
        await eventually_async(lambda: not gateway.server.servicer.in_flight)


async def test_a_call_that_leaves_before_its_turn_asks_no_replica(native, started):
    async with native() as gateway:
        front, loop = gateway.server._transport, asyncio.get_running_loop()
        calls = []

        def busy(envelope):
            calls.append(envelope.calls or 1)
            return reply(envelope, errors.OverloadedError("busy", retry_after=0.1))

        gateway.replicas[0].behave = busy
        cancel = (EVENT_CANCEL, 1050, 0, None, None, None)
        front._take(loop, [*arrivals(range(1000, 1100), gateway.metadata), cancel])
        await eventually_async(lambda: sum(map(len, started)) == 100 and not gateway.server.servicer.in_flight)
        assert sum(calls) == 99


async def test_waiting_calls_above_the_bytes_start_at_once(native, started, monkeypatch):
    monkeypatch.setattr("gateway.transport.native._MOST_WAITING_BYTES", 0)
    async with native() as gateway:
        gateway.server._transport._take(asyncio.get_running_loop(), arrivals(range(1000, 1100), gateway.metadata))
        await eventually_async(lambda: started)
        assert len(started[0]) == 100
        await eventually_async(lambda: not gateway.server.servicer.in_flight)


async def test_a_stop_refuses_the_calls_that_wait(native, started):
    async with native() as gateway:
        front = gateway.server._transport
        gateway.server.servicer.drain()
        front._take(asyncio.get_running_loop(), arrivals(range(1000, 1100), gateway.metadata))
        await gateway.server.stop()
        assert sum(map(len, started)) == 100
        assert not gateway.replicas[0].asked


async def test_what_goes_wrong_with_one_call_does_not_stop_the_next_ones(native, monkeypatch):
    async with native() as gateway:
        real, broken = NativeTransport._start_some, []

        def begin(front, count):
            if not broken:
                broken.append(count)
                raise RuntimeError("a bug")
            real(front, count)

        monkeypatch.setattr(NativeTransport, "_start_some", begin)
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        assert (await gateway.predict()).request_id
        assert len(broken) == 1


async def test_a_bug_in_telling_an_end_does_not_hold_up_the_stop(native, monkeypatch):
    async with native() as gateway:

        def broken(front, call_id, ended):
            raise RuntimeError("a bug")

        monkeypatch.setattr(NativeTransport, "_write", broken)
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        held = asyncio.Event()

        async def slow(envelope):
            await held.wait()
            return exchange_pb2.Reply(id=envelope.id, response=pb.PredictResponse(model="late").SerializeToString())

        gateway.replicas[0].behave = slow
        call = gateway.predict()
        await gateway.replicas[0].came.wait()
        stopping = asyncio.create_task(gateway.server.stop())
        held.set()
        async with asyncio.timeout(60):
            await stopping
        call.cancel()


SHORT_OF_DESCRIPTORS = """
import logging, resource, socket, threading
from pygrpc_native import NativeGrpcFront
from runtime import logs

repeated = threading.Event()
lines = []

def count(record):
    lines.append(record)
    if len(lines) == 10:
        repeated.set()
    return True

logging.getLogger("pygrpc_native.server").addFilter(count)
logs.configure("info")
server = NativeGrpcFront("127.0.0.1:0", [("/a/b", False)], io_threads=1)
server.start()
client = socket.socket()
most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, most[1]))
client.connect(("127.0.0.1", server.bound_port))
assert repeated.wait(60)
resource.setrlimit(resource.RLIMIT_NOFILE, most)
server.close()
"""


def test_a_shortage_of_descriptors_is_one_line_and_not_one_for_each_attempt():
    command = [sys.executable, "-c", SHORT_OF_DESCRIPTORS]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=250)
    (line,) = [json.loads(line) for line in result.stderr.splitlines()]
    assert (line["logger"], line["level"]) == ("pygrpc_native.server", "warning")
    assert "Too many open files" in line["event"]
