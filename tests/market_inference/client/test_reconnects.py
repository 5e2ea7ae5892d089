"""Connections that end, with and without a word, against servers on real sockets."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import grpc
import pytest

from benchmarks.ports import HeldPort
from market_inference import AsyncClient, Client, Retries, errors
from market_inference.client import connection
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.generated.inference_pb2_grpc import (
    MarketInferenceServiceServicer,
    add_MarketInferenceServiceServicer_to_server,
)
from tests.eventually import eventually

CLOSES = [100.0 + at for at in range(40)]


class Echo(MarketInferenceServiceServicer):
    """Sessions with the close as only indicator; status answers at once."""

    def Watch(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[pb.WatchResponse]:  # noqa: N802
        next(requests)
        yield pb.WatchResponse(opened=pb.WatchOpened(columns=["SMA"], request_id="r"))
        for taken, request in enumerate(requests, start=1):
            update = pb.WatchUpdate(indicators=[request.bar.bar.close])
            yield pb.WatchResponse(sequence=request.bar.sequence, update=update, taken=taken)

    def GetStatus(self, request: Any, context: grpc.ServicerContext) -> pb.GetStatusResponse:  # noqa: N802
        return pb.GetStatusResponse(health=pb.HEALTH_HEALTHY, time={"seconds": 1})


class Forwarder:
    """A TCP forwarder on loopback; after stall() its connections stay open and carry nothing, as behind a NAT."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._alive = threading.Event()
        self.target = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def stall(self) -> None:
        """Every connection so far is dead from now on; new ones work."""
        self._alive.set()
        self._alive = threading.Event()

    def close(self) -> None:
        """End while the service still takes connections: the client may connect until the end."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join(60)
        self._alive.set()
        for one in (self._server, *self._sockets):
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._port))
            self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink, self._alive), daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, sink: socket.socket, dead: threading.Event) -> None:
        try:
            while data := source.recv(1 << 16):
                if dead.is_set():
                    return
                sink.sendall(data)
        except OSError:
            return


@contextmanager
def serving(servicer: MarketInferenceServiceServicer) -> Iterator[str]:
    """The address of a server for the time of a block."""
    server = grpc.server(ThreadPoolExecutor(4))
    add_MarketInferenceServiceServicer_to_server(servicer, server)
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield target
    finally:
        server.stop(None).wait(60)


def start(port: int = 0) -> tuple[grpc.Server, int]:
    options = [("grpc.http2.min_ping_interval_without_data_ms", 100), ("grpc.keepalive_permit_without_calls", 1)]
    server = grpc.server(ThreadPoolExecutor(8), options=options)
    add_MarketInferenceServiceServicer_to_server(Echo(), server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server, bound


@pytest.fixture
def port() -> Iterator[HeldPort]:
    """The port of a service that ends and starts again."""
    with HeldPort() as port:
        yield port


@pytest.fixture
def forwarder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Forwarder]:
    """A way to a service; clients made meanwhile notice a dead connection within two seconds."""
    monkeypatch.setattr(connection, "KEEPALIVE_SECONDS", 1)
    monkeypatch.setattr(connection, "KEEPALIVE_TIMEOUT_SECONDS", 1)
    server, port = start()
    made = Forwarder(port)
    yield made
    made.close()
    server.stop(None).wait(60)


def test_a_session_on_a_connection_that_died_silently_is_taken_up_again(forwarder: Forwarder) -> None:
    with Client(forwarder.target) as client, client.watch("A", CLOSES, indicators=["SMA"]) as session:
        session.append(101.5)
        assert next(session)["SMA"] == 101.5
        forwarder.stall()
        session.append(102.5)
        assert next(session)["SMA"] == 102.5
        # On a busy machine a living connection may seem dead, too.
        assert session.reconnects >= 1


def test_a_finished_session_gives_the_updates_in_flight_and_takes_no_more_bars(forwarder: Forwarder) -> None:
    with Client(forwarder.target) as client, client.watch("A", CLOSES, indicators=["SMA"]) as session:
        session.append(101.5)
        session.append(102.5)
        session.finish()
        for refused in (lambda: session.append(103.5), lambda: session.correct(102.0)):
            with pytest.raises(errors.ClosedError, match="no more bars"):
                refused()
        assert [update["SMA"] for update in session] == [101.5, 102.5]

    async def run() -> list[float]:
        async with AsyncClient(forwarder.target) as client, client.watch("A", CLOSES, indicators=["SMA"]) as session:
            await session.append(101.5)
            await session.finish()
            with pytest.raises(errors.ClosedError, match="no more bars"):
                await session.append(103.5)
            return [update["SMA"] async for update in session]

    assert asyncio.run(asyncio.wait_for(run(), 60)) == [101.5]


async def test_a_cancelled_append_has_sent_no_bar(forwarder: Forwarder) -> None:
    """Its caller sends the bar again: the bar must not count twice."""
    async with AsyncClient(forwarder.target) as client, client.watch("A", CLOSES, indicators=["SMA"]) as session:
        leave = asyncio.Event()

        async def queue_up() -> None:
            async with session._changed:
                await leave.wait()

        async with session._changed:
            appending = asyncio.create_task(session.append(1.0))
            await asyncio.sleep(0)
            queued = asyncio.create_task(queue_up())
            await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        appending.cancel()
        await asyncio.wait({appending})
        leave.set()
        await queued
        if appending.cancelled():
            await session.append(1.0)
        await session.finish()
        assert [update.sequence async for update in session] == [1]


def test_an_idle_session_notices_a_dead_connection_without_a_bar(forwarder: Forwarder) -> None:
    async def run() -> None:
        async with AsyncClient(forwarder.target) as client, client.watch("A", CLOSES, indicators=["SMA"]) as session:
            forwarder.stall()
            while not session.reconnects:  # noqa: ASYNC110  # reconnects has no event
                await asyncio.sleep(0.05)
            await session.append(101.5)
            assert (await anext(session))["SMA"] == 101.5

    asyncio.run(asyncio.wait_for(run(), 60))


def test_calls_succeed_after_the_service_s_return(port: HeldPort) -> None:
    server, _ = start(port.number)
    with Client(port.address, retries=Retries(attempts=0)) as client:
        client.status()
        server.stop(None).wait(60)

        def error() -> str:
            """The text of the call's failure; empty for a good answer."""
            try:
                client.status()
            except errors.UnavailableError as refused:
                return str(refused)
            return ""

        # The first call may still meet the connection that is being closed.
        eventually(error, lambda text: "nothing answers at" in text)
        server, _ = start(port.number)
        eventually(error, lambda text: not text)
        server.stop(None).wait(60)


def test_the_pauses_between_attempts_to_connect_stay_short() -> None:
    """The tenth attempt comes after five to seven seconds. By gRPC's defaults it comes after 90 s at the earliest."""
    over, began = threading.Event(), time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = Client(f"127.0.0.1:{listener.getsockname()[1]}", retries=Retries(attempts=0))

        def call() -> None:
            while not over.wait(0.02):
                with suppress(errors.UnavailableError):
                    client.status()

        listener.settimeout(60)
        calling = threading.Thread(target=call)
        calling.start()
        try:
            for _ in range(10):
                listener.accept()[0].close()
        finally:
            over.set()
            calling.join(60)
            client.close()
    assert time.monotonic() - began < 80


def test_a_session_outlives_a_service_that_comes_back(port: HeldPort) -> None:
    server, _ = start(port.number)
    with Client(port.address) as client, client.watch("A", CLOSES, indicators=["SMA"]) as session:
        server.stop(None).wait(60)
        server, _ = start(port.number)
        session.append(101.5)
        assert next(session)["SMA"] == 101.5
        server.stop(None).wait(60)
        session.append(102.5)
        restarted: list[grpc.Server] = []
        timer = threading.Timer(0.5, lambda: restarted.append(start(port.number)[0]))
        timer.start()
        assert next(session)["SMA"] == 102.5
        timer.join(60)
    restarted[0].stop(None).wait(60)


def test_a_session_gives_up_after_its_time_with_the_cause(port: HeldPort) -> None:
    server, _ = start(port.number)
    with (
        Client(port.address) as client,
        client.watch("A", CLOSES, indicators=["SMA"], reconnect_seconds=0.2) as session,
    ):
        server.stop(None).wait(60)
        session.append(101.5)
        with pytest.raises(errors.UnavailableError, match=r"nothing answers at .*\(connection refused\)"):
            next(session)


def misfits() -> dict[str, list[pb.WatchResponse]]:
    """Answers that do not fit a session of one column with one bar in flight."""
    opened = pb.WatchOpened(columns=["SMA"], request_id="r")
    update = pb.WatchUpdate(indicators=[1.0])
    return {
        "too many indicators": [pb.WatchResponse(opened=pb.WatchOpened(columns=["SMA", "RSI"]))],
        "no result": [pb.WatchResponse(opened=opened), pb.WatchResponse(sequence=1, taken=1)],
        "bars that were not sent": [
            pb.WatchResponse(opened=opened),
            pb.WatchResponse(sequence=1, taken=2, update=update),
        ],
        "too many values": [
            pb.WatchResponse(opened=opened),
            pb.WatchResponse(sequence=1, taken=1, update=pb.WatchUpdate(indicators=[1.0, 2.0])),
        ],
    }


class Misfit(MarketInferenceServiceServicer):
    """Sessions with the same answers to any bars."""

    def __init__(self, answers: list[pb.WatchResponse]) -> None:
        self._answers = answers

    def Watch(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[pb.WatchResponse]:  # noqa: N802
        for answer, _ in zip(self._answers, requests, strict=False):
            yield answer
        for _ in requests:
            pass


@pytest.mark.parametrize("answers", misfits().values(), ids=misfits())
async def test_an_answer_that_does_not_fit_ends_the_session_with_a_typed_error(answers):
    with serving(Misfit(answers)) as target:
        async with AsyncClient(target) as client, asyncio.timeout(60):
            with pytest.raises(errors.InternalError, match="the service sent"):
                async with client.watch("A", CLOSES, indicators=["SMA"]) as session:
                    await session.append(1.0)
                    await anext(session)
        with Client(target) as client, pytest.raises(errors.InternalError, match="the service sent"):  # noqa: SIM117
            with client.watch("A", CLOSES, indicators=["SMA"]) as session:
                session.append(1.0)
                next(session)


def test_a_wrong_answer_to_a_reopening_ends_the_session() -> None:
    openings = iter((pb.WatchOpened(columns=["SMA"], request_id="r"), pb.WatchOpened(columns=["RSI"], request_id="r")))

    class Changed(MarketInferenceServiceServicer):
        """The first session is lost at its first bar, the next one has another indicator."""

        def Watch(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[pb.WatchResponse]:  # noqa: N802
            next(requests)
            yield pb.WatchResponse(opened=next(openings))
            next(requests)
            context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    with (
        serving(Changed()) as target,
        Client(target) as client,
        client.watch("A", CLOSES, indicators=["SMA"]) as session,
    ):
        session.append(1.0)
        with pytest.raises(errors.InternalError, match="the service sent"):
            next(session)
        with pytest.raises(errors.ClosedError):
            next(session)


def test_a_session_that_breaks_again_and_again_is_reopened_with_pauses_and_ends() -> None:
    openings: list[pb.WatchRequest] = []

    class Breaking(MarketInferenceServiceServicer):
        """Every session is lost at its first bar."""

        def Watch(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[pb.WatchResponse]:  # noqa: N802
            openings.append(next(requests))
            yield pb.WatchResponse(opened=pb.WatchOpened(columns=["SMA"], request_id="r"))
            next(requests)
            context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    async def watch(target: str) -> None:
        async with (
            AsyncClient(target) as client,
            client.watch("A", CLOSES, indicators=["SMA"], reconnect_seconds=0.9) as session,
        ):
            await session.append(1.0)
            await anext(session)

    with serving(Breaking()) as target:
        with Client(target) as client, client.watch("A", CLOSES, indicators=["SMA"], reconnect_seconds=0.9) as session:
            session.append(1.0)
            with pytest.raises(errors.UnavailableError, match="gone"):
                next(session)
        assert 3 <= len(openings) <= 7  # pauses of 25, 50, 100, 200, 400 and 800 ms at least
        openings.clear()
        with pytest.raises(errors.UnavailableError, match="gone"):
            asyncio.run(watch(target))
        assert 3 <= len(openings) <= 7
