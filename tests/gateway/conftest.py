"""A gateway on a socket with replicas controlled by the test."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from gateway.config import Config
from gateway.server import Server
from market_inference.contract import errors, keys
from market_inference.contract.generated import exchange_pb2, exchange_pb2_grpc, inference_pb2_grpc
from market_inference.contract.generated import inference_pb2 as pb
from runtime.frames import ConnectionLostError, Frames
from runtime.listen import bind, exchange_path

GOOD = pb.PredictRequest(series=[pb.Series(values=[1.0, 2.0] * 20)], horizon=3)
Behaviour = Callable[[exchange_pb2.Envelope], Any]


def reply(envelope: exchange_pb2.Envelope, error: errors.ServiceError | None = None) -> exchange_pb2.Reply:
    if error is not None:
        return exchange_pb2.Reply(id=envelope.id, error=error.status(envelope.request_id))
    answer = pb.PredictResponse(request_id=envelope.request_id)
    return exchange_pb2.Reply(id=envelope.id, response=answer.SerializeToString())


class Replica(exchange_pb2_grpc.ExchangeServiceServicer):
    """Answers well until `behave` is set to something that returns a reply, or None for silence.

    `socket`: the path of a Unix socket to serve; by default the replica serves a port.
    """

    def __init__(self, socket: str = "") -> None:
        self._listen = f"unix:{socket}" if socket else "127.0.0.1:0"
        self._local: Any = None
        self.behave: Behaviour = reply
        self.asked = 0
        self.withdrawn: list[int] = []
        self.withdraw: Behaviour = lambda envelope: None
        self.came = asyncio.Event()
        self.address = ""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._calls: set[Any] = set()

    async def start(self) -> None:
        health = health_aio.HealthServicer()
        exchange_pb2_grpc.add_ExchangeServiceServicer_to_server(self, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(health, self._server)
        self.address = bind(self._server.add_insecure_port, self._listen)
        if path := exchange_path(self.address):
            self._local = await asyncio.get_running_loop().create_unix_server(self._accept, path)
        await health.set("", health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()

    async def Exchange(self, request_iterator, context):  # noqa: N802 -- the contract's name
        yield exchange_pb2.ExchangeResponse(load=exchange_pb2.Load())
        async for frame in request_iterator:
            for envelope in frame.envelopes:
                if envelope.HasField("cancel"):
                    self.withdrawn.append(envelope.id)
                    answer = self.withdraw(envelope)
                else:
                    self.asked += 1
                    self.came.set()
                    answer = self.behave(envelope)
                if asyncio.iscoroutine(answer):
                    answer = await answer
                if answer is not None:
                    yield exchange_pb2.ExchangeResponse(replies=[answer], load=exchange_pb2.Load())

    def _accept(self) -> Frames:
        """Serve Exchange on a connection to the Unix socket."""
        requests: asyncio.Queue[exchange_pb2.ExchangeRequest | None] = asyncio.Queue()

        async def received() -> AsyncIterator[exchange_pb2.ExchangeRequest]:
            while (frame := await requests.get()) is not None:
                yield frame

        async def serve() -> None:
            try:
                async for frame in self.Exchange(received(), None):
                    await frames.write(frame.SerializeToString())
                frames.end()
            finally:
                frames.close()

        def ended(error: ConnectionLostError | None) -> None:
            requests.put_nowait(None)
            if error is not None:
                task.cancel()

        def discard(task: asyncio.Task[None]) -> None:
            self._calls.discard(task)
            if not task.cancelled():
                task.exception()  # a behaviour that raises ends the stream

        frames = Frames(lambda content: requests.put_nowait(exchange_pb2.ExchangeRequest.FromString(content)), ended)
        task = asyncio.get_running_loop().create_task(serve())
        self._calls.add(task)
        task.add_done_callback(discard)
        return frames

    async def stop(self) -> None:
        if self._local is not None:
            self._local.close()
        for task in self._calls:
            task.cancel()
        await self._server.stop(None)


class Gateway:
    """A running gateway and a client of it."""

    def __init__(self, server: Server, replicas: list[Replica], channel: grpc.aio.Channel, secret: str) -> None:
        self.server = server
        self.replicas = replicas
        self.channel = channel
        self.secret = secret
        self.stub: Any = inference_pb2_grpc.MarketInferenceServiceStub(channel)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("x-api-key", self.secret),)

    def predict(self, request: pb.PredictRequest = GOOD, timeout: float = 60.0, **more: Any) -> Any:
        return self.stub.Predict(request, **{"metadata": self.metadata, "timeout": timeout, **more})

    async def ready(self, count: int) -> None:
        async with asyncio.timeout(60):
            while sum(replica.ready for replica in self.server.router.replicas) != count:
                await self.server.router.wait_for_change()


@pytest.fixture
def carrier() -> str:
    """What carries Exchange streams: grpc, or the unix socket. Folders with tests of the streams override this."""
    return "grpc"


@pytest.fixture
def start(tmp_path, tmp_path_factory, carrier):
    """Starts a gateway before so many replicas: `async with start(2) as gateway`."""

    @asynccontextmanager
    async def run(count: int = 2, **settings: Any) -> AsyncIterator[Gateway]:
        secret, key = keys.issue("desk")
        with keys.edit(tmp_path / "keys.json") as known:
            known[:] = [key]
        folder = tmp_path_factory.mktemp("s") if carrier == "unix" else None
        replicas = [Replica(f"{folder}/{number}" if folder else "") for number in range(count)]
        for replica in replicas:
            await replica.start()
        # Gateway and replicas share a process: where the system holds the process up, a health check is late.
        health = {"health_interval": 0.2, "health_timeout": 60.0}
        defaults = {"listen": "127.0.0.1:0", "metrics_listen": "127.0.0.1:0", **health}
        found = {"replicas": ",".join(replica.address for replica in replicas), "keys_file": tmp_path / "keys.json"}
        server = Server(Config(**{**defaults, **found, "drain_seconds": 60.0, **settings}))
        await server.start()
        options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        async with grpc.aio.insecure_channel(server.address, options) as channel:
            gateway = Gateway(server, replicas, channel, secret)
            await gateway.ready(count)
            try:
                yield gateway
            finally:
                await server.stop()
                for replica in replicas:
                    await replica.stop()

    return run
