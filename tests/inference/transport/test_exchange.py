"""The Exchange stream on a real server, by gRPC and by a Unix socket: replies, cancels, drain, and lost gateways."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import Event
from typing import Any

import grpc
import numpy as np
import pytest

from gateway.replicas.carrier import Carrier, GrpcStream, LocalStream, StreamLostError
from gateway.replicas.outbox import Outbox
from inference.config import Config
from inference.server import Server
from inference.transport import exchange
from market_inference.contract.encoding import wireformat
from market_inference.contract.errors import reason_of
from market_inference.contract.generated import exchange_pb2
from market_inference.contract.generated import inference_pb2 as pb
from models import forecast
from runtime.frame_queue import LARGE_BYTES
from runtime.listen import exchange_path
from tests.eventually import eventually_async


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "NAMES", (*forecast.NAMES, "held"))


def test_a_large_request_stays_in_its_frame_and_others_are_parsed():
    body = pb.PredictRequest(series=[pb.Series(values=np.ones(LARGE_BYTES // 8))], horizon=2).SerializeToString()
    outbox = Outbox()
    outbox.add(exchange_pb2.Envelope(id=3, request_id="r"), "predict", body)
    frame = b"".join(outbox._ready.take())
    ((envelope, method, found),) = exchange._envelopes(frame)
    assert (envelope.id, envelope.request_id, method, bytes(found)) == (3, "r", "predict", body)
    assert found.obj is frame
    # Protobuf's writers put the request where its number stands, and a cancel may follow in the same frame.
    usual = exchange_pb2.Envelope(id=4, predict=body), exchange_pb2.Envelope(id=4, cancel={})
    cancelled = exchange_pb2.ExchangeRequest(envelopes=usual[1:]).SerializeToString()
    for start in (exchange_pb2.ExchangeRequest(envelopes=usual[:1]).SerializeToString(), frame):
        (large, method, found), (cancel, what, _) = exchange._envelopes(start + cancelled)
        assert (method, found, large.predict, what) == ("predict", None, body, "cancel")
        assert cancel.HasField("cancel")


@pytest.mark.parametrize("number", [4, 19])  # the client, and a method of a later version
def test_a_large_field_that_is_no_known_request_and_an_empty_envelope_are_parsed(number: int):
    rest = exchange_pb2.Envelope(id=3).SerializeToString()
    large = wireformat.pieces(1, *wireformat.pieces(number, b"a" * LARGE_BYTES), rest)
    frame = b"".join((*large, *wireformat.pieces(1)))
    found = [(envelope.id, method, body) for envelope, method, body in exchange._envelopes(frame)]
    assert found == [(3, "none", None), (0, "none", None)]


def test_a_large_field_of_a_frame_that_is_no_envelope_is_ignored():
    """A later version may give frames further fields."""
    body = wireformat.pieces(exchange_pb2.Envelope.PREDICT_FIELD_NUMBER, b"a" * LARGE_BYTES)
    frame = b"".join(
        (*wireformat.pieces(2, *body), *wireformat.pieces(1, exchange_pb2.Envelope(id=3).SerializeToString()))
    )
    assert [(envelope.id, method) for envelope, method, _ in exchange._envelopes(frame)] == [(3, "none")]


class Held:
    """A forecaster whose batches wait for the gate."""

    def __init__(self) -> None:
        self._model = forecast.load("vol_rw")
        self.gate = Event()
        self.gate.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def run(self, items: Any) -> Any:
        assert self.gate.wait(60)
        return self._model.run(items)


class Stream:
    """A gateway's side of one Exchange stream."""

    def __init__(self, exchange: Carrier) -> None:
        self._exchange = exchange
        self._frames: asyncio.Queue[exchange_pb2.ExchangeResponse] = asyncio.Queue()
        self._replies: list[exchange_pb2.Reply] = []
        self.reading = asyncio.create_task(exchange.read(self._frames.put_nowait))

    async def send(self, *envelopes: exchange_pb2.Envelope) -> None:
        await self._exchange.write([exchange_pb2.ExchangeRequest(envelopes=envelopes).SerializeToString()])

    async def done(self) -> None:
        await self._exchange.done_writing()

    async def frame(self) -> exchange_pb2.ExchangeResponse:
        return await asyncio.wait_for(self._frames.get(), 60)

    async def close(self) -> None:
        self._exchange.cancel()
        await asyncio.wait([self.reading], timeout=60)
        assert self.reading.done()

    async def reply(self) -> exchange_pb2.Reply:
        while not self._replies:
            self._replies += (await self.frame()).replies
        return self._replies.pop(0)


@pytest.fixture(params=["grpc", "unix"])
def address(request, tmp_path_factory) -> str:
    return "127.0.0.1:0" if request.param == "grpc" else f"unix:{tmp_path_factory.mktemp('s')}/r"


@pytest.fixture
async def server(address) -> AsyncIterator[Server]:
    server = Server(
        Config(
            device="cpu", forecast_models="held", sentiment_models="", drain_seconds=5,
            listen=address, metrics_listen="127.0.0.1:0", _env_file=None,
        )
    )  # fmt: skip
    slot = server.parts.catalog.default("forecast")
    slot.load = Held
    await server.start()
    await server.parts.catalog.load(slot)
    yield server
    slot.model.gate.set()
    await server.stop()


@pytest.fixture
async def stream(server) -> AsyncIterator[Stream]:
    async with opened(server) as stream:
        yield stream


@asynccontextmanager
async def opened(server) -> AsyncIterator[Stream]:
    async with grpc.aio.insecure_channel(server.address) as channel:
        path = exchange_path(server.address)
        stream = Stream(LocalStream(path) if path else GrpcStream(channel))
        assert not (await stream.frame()).replies, "the first frame holds the load alone"
        yield stream
        await stream.close()


def predict(number: int, **fields: Any) -> exchange_pb2.Envelope:
    request = pb.PredictRequest(series=[pb.Series(values=np.linspace(90, 110, 60).tolist())], horizon=2)
    return exchange_pb2.Envelope(id=number, request_id=f"r{number}", predict=request.SerializeToString(), **fields)


async def test_requests_of_one_frame_are_answered_under_their_ids(stream):
    await stream.send(*(predict(number) for number in range(1, 6)))
    replies = [await stream.reply() for _ in range(5)]
    assert sorted(reply.id for reply in replies) == [1, 2, 3, 4, 5]
    for reply in replies:
        answer = pb.PredictResponse.FromString(reply.response)
        assert answer.request_id == f"r{reply.id}"
        assert len(answer.forecasts[0].forecast.point) == 2
        assert reply.timing.batch_items >= 1


async def test_a_cancelled_request_has_no_reply_and_leaves_no_work(server, stream):
    model, batcher = server.parts.catalog.default("forecast").model, server.parts.tracks["forecast"].quick
    model.gate.clear()
    await stream.send(predict(1))
    await eventually_async(lambda: batcher._running)
    await stream.send(predict(2), predict(3))
    await eventually_async(lambda: batcher.queued_items == 2)
    await stream.send(exchange_pb2.Envelope(id=2, cancel=exchange_pb2.ExchangeCancel()))
    await eventually_async(lambda: batcher.queued_items == 1)
    model.gate.set()
    assert {(await stream.reply()).id for _ in range(2)} == {1, 3}


async def test_items_of_cancelled_calls_in_a_merged_request_are_errors(server, stream):
    model, batcher = server.parts.catalog.default("forecast").model, server.parts.tracks["forecast"].quick
    model.gate.clear()
    await stream.send(predict(1))
    await eventually_async(lambda: batcher._running)
    request = pb.PredictRequest(horizon=2)
    for _ in range(3):
        request.series.add(values=np.linspace(90, 110, 60).tolist())
    await stream.send(exchange_pb2.Envelope(id=2, calls=3, predict=request.SerializeToString()))
    await eventually_async(lambda: batcher.queued_items == 3)
    await stream.send(exchange_pb2.Envelope(id=2, cancel=exchange_pb2.ExchangeCancel(items=[1])))
    await stream.send(exchange_pb2.Envelope(id=9, watch_bar=pb.WatchBar(sequence=1)))
    assert (await stream.reply()).id == 9, "the cancel was read"
    model.gate.set()
    replies = {reply.id: reply for reply in [await stream.reply(), await stream.reply()]}
    assert list(replies[2].failed) == [1]


async def test_a_bar_of_an_unknown_session_and_an_unknown_method_are_typed_errors(stream):
    bar = pb.WatchBar(sequence=1, bar=pb.Bar(time=1, close=1.0))
    await stream.send(exchange_pb2.Envelope(id=7, watch_bar=bar), exchange_pb2.Envelope(id=8))
    errors = {reply.id: reason_of(reply.error) for reply in [await stream.reply(), await stream.reply()]}
    assert errors == {7: "SESSION_LOST", 8: "INTERNAL"}


async def test_a_draining_replica_tells_its_gateways_and_completes_the_requests_in_flight(server, stream):
    model, batcher = server.parts.catalog.default("forecast").model, server.parts.tracks["forecast"].quick
    model.gate.clear()
    await stream.send(predict(1))
    await eventually_async(lambda: batcher._running)
    draining = asyncio.create_task(server._exchange.drain())
    assert (await stream.frame()).load.draining
    await stream.send(predict(2))
    assert reason_of((await stream.reply()).error) == "DRAINING"
    model.gate.set()
    assert pb.PredictResponse.FromString((await stream.reply()).response).request_id == "r1"
    await draining


async def test_a_stream_ends_without_a_loss_once_the_gateway_has_no_more_requests(stream):
    await stream.send(predict(1))
    assert (await stream.reply()).id == 1
    await stream.done()
    await asyncio.wait_for(stream.reading, 60)


async def test_the_work_of_a_gateway_that_is_gone_leaves_the_queue(server, stream):
    model, batcher = server.parts.catalog.default("forecast").model, server.parts.tracks["forecast"].quick
    model.gate.clear()
    async with opened(server) as gone:
        await stream.send(predict(1))
        await eventually_async(lambda: batcher._running)
        await gone.send(predict(2), predict(3))
        await eventually_async(lambda: batcher.queued_items == 2)
    await eventually_async(lambda: batcher.queued_items == 0)
    model.gate.set()
    assert (await stream.reply()).id == 1


async def test_a_gateway_that_does_not_read_holds_back_the_answers_and_not_the_service(server, stream):
    replies = 200
    request = pb.PredictRequest(series=[pb.Series(values=np.linspace(90, 110, 60).tolist())] * 16, horizon=256)
    raw = request.SerializeToString()
    for number in range(replies):
        await stream.send(exchange_pb2.Envelope(id=number + 1, request_id=f"r{number}", predict=raw))
    assert sorted([(await stream.reply()).id for _ in range(replies)]) == list(range(1, replies + 1))
    assert server._exchange.unsent_bytes == 0


async def test_open_streams_are_lost_when_the_service_stops(server, stream):
    await server._exchange.drain()
    await server._server.stop(0.5)
    await server._local.stop(0.5)
    await asyncio.wait([stream.reading], timeout=60)
    assert isinstance(stream.reading.exception(), StreamLostError)
