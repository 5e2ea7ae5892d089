"""Stream compared with unary calls: the same requests through the same gateway worker, in alternating rounds.

`python -m benchmarks.stream` requests the RSI of 60 closes, `--in-flight` at a time, as unary calls over one channel
and over one stream. Rounds alternate, so that other load on the machine affects both. The comparison runs with an echo
as replica (only the gateway is measured) and with a real replica. Prints requests per second, the gateway's CPU time
per request, and the ratios to unary.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil

from benchmarks.services import Gateway, Services
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.generated.inference_pb2_grpc import MarketInferenceServiceStub

REQUEST = pb.ComputeIndicatorsRequest(
    panels=[pb.Panel(close=100 + np.cumsum(np.random.default_rng(0).normal(size=60)))],
    indicators=[pb.IndicatorSpec(name="RSI", last=1)],
)


@dataclass
class Run:
    """One round of unary calls or of a stream."""

    requests: int
    seconds: float
    gateway_cpu: float

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    @property
    def cpu_us(self) -> float:
        return self.gateway_cpu / self.requests * 1e6


async def unary(stub: Any, metadata: Any, count: int, in_flight: int) -> None:
    todo = iter(range(count))

    async def asker() -> None:
        for _ in todo:
            await stub.ComputeIndicators(REQUEST, metadata=metadata, timeout=30)

    await asyncio.gather(*(asker() for _ in range(in_flight)))


async def stream(stub: Any, metadata: Any, count: int, in_flight: int, share: int) -> None:
    """`share`: largest number of requests in one message."""
    call = stub.Stream(metadata=metadata)
    sent = answered = 0
    while answered < count:
        while sent < count and sent - answered + share <= in_flight:
            ids = range(sent + 1, min(sent + share, count) + 1)
            await call.write(pb.StreamRequest(requests=[pb.StreamItem(id=i, indicators=REQUEST) for i in ids]))
            sent = ids[-1]
        response = await call.read()
        for answer in response.answers:
            assert answer.WhichOneof("result") == "indicators", answer
            answered += 1
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def timed(process: psutil.Process, count: int, run: Callable[[], Awaitable[None]]) -> Run:
    before, began = process.cpu_times(), time.perf_counter()
    await run()
    seconds, after = time.perf_counter() - began, process.cpu_times()
    return Run(count, seconds, after.user + after.system - before.user - before.system)


async def compare(gateway: Gateway, rounds: int, count: int, in_flight: int) -> dict[str, list[Run]]:
    metadata = (("authorization", f"Bearer {gateway.key}"),)
    runs: dict[str, list[Run]] = {"unary": [], "stream, 1 a message": [], "stream, 32 a message": []}
    async with grpc.aio.insecure_channel(gateway.target) as channel:
        stub: Any = MarketInferenceServiceStub(channel)
        ways: dict[str, Callable[[int], Awaitable[None]]] = {
            "unary": lambda n: unary(stub, metadata, n, in_flight),
            "stream, 1 a message": lambda n: stream(stub, metadata, n, in_flight, 1),
            "stream, 32 a message": lambda n: stream(stub, metadata, n, in_flight, 32),
        }
        for way in ways.values():
            await way(count // 10)
        for _ in range(rounds):
            for name, way in ways.items():
                runs[name].append(await timed(gateway.process, count, lambda way=way: way(count)))  # type: ignore[misc]
    return runs


def report(title: str, runs: dict[str, list[Run]]) -> None:
    base = runs["unary"]
    print(f"{title:28}{'requests/s':>12}{'ratio':>8}{'gateway CPU us':>16}{'ratio':>8}")
    for name, found in runs.items():
        rate = statistics.median(one.rate for one in found)
        cpu = statistics.median(one.cpu_us for one in found)
        faster = statistics.median(one.rate / other.rate for one, other in zip(found, base, strict=True))
        cheaper = statistics.median(other.cpu_us / one.cpu_us for one, other in zip(found, base, strict=True))
        print(f"{name:28}{rate:12,.0f}{faster:7.2f}x{cpu:16.0f}{cheaper:7.2f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=5000, help="in each round")
    parser.add_argument("--in-flight", type=int, default=256)
    given = parser.parse_args()
    size = (given.rounds, given.requests, given.in_flight)
    with tempfile.TemporaryDirectory() as state:
        with Services(Path(state)) as services:
            services.start_gateway([services.start_echo()])
            report("an echo behind the gateway", asyncio.run(compare(services.gateway, *size)))
        with Services(Path(state)) as services:
            services.start_gateway([services.start_replica()])
            services.wait_loaded()
            report("a real replica behind it", asyncio.run(compare(services.gateway, *size)))


if __name__ == "__main__":
    main()
