"""Live sessions under load: the time from bar to answer.

`python -m benchmarks.watch` opens 1,000 sessions with RSI, MACD, BBANDS, ATR, SMA and EMA over OHLCV bars, and sends
one bar per second to every session, at random offsets. Every ten seconds a line shows answers per second,
percentiles of the time from sending a bar to reading the answer, and memory and CPU time of the gateway and the
inference service. One client process, one gateway and one inference service share the machine. With `--burst` all
sessions get the bar at the same moment, as at the close of a minute; the percentiles then show the wait of the last
sessions.
"""

import argparse
import asyncio
import gc
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil

from benchmarks.services import Services
from market_inference.client.channels import Channels
from market_inference.client.connection import channel_options
from market_inference.contract.generated import inference_pb2 as pb
from runtime import loop as event_loop

INDICATORS = ("RSI", "MACD", "BBANDS", "ATR", "SMA", "EMA")
HISTORY = 100
REPORT_SECONDS = 10.0


def opening(seed: int) -> pb.WatchRequest:
    close = 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.01, HISTORY)))
    history = pb.Panel(open=close, high=close * 1.001, low=close * 0.999, close=close, volume=np.full(HISTORY, 1000.0))
    indicators = [pb.IndicatorSpec(name=name) for name in INDICATORS]
    return pb.WatchRequest(open=pb.WatchOpen(symbol=str(seed), history=history, indicators=indicators, bars=500))


def bar(sequence: int) -> pb.WatchRequest:
    close = 100 + sequence % 7
    return pb.WatchRequest(
        bar=pb.WatchBar(
            sequence=sequence,
            bar=pb.Bar(time=sequence, open=close, high=close + 1, low=close - 1, close=close, volume=1000),
        )
    )


async def session(call: Any, begin: float, until: float, seconds: list[float]) -> None:
    """Send one bar per second from `begin` to `until`; a late answer delays only the next bar of the session."""
    loop, sequence = asyncio.get_running_loop(), 0
    while (due := begin + sequence) < until:
        await asyncio.sleep(max(0.0, due - loop.time()))
        sequence += 1
        message = bar(sequence)
        began = time.perf_counter()
        await call.write(message)
        answer = await call.read()
        seconds.append(time.perf_counter() - began)
        assert answer.sequence == sequence, answer
        assert len(answer.update.indicators) == 10, answer
    await call.done_writing()


async def report(services: dict[str, psutil.Process], seconds: list[float], until: float) -> list[float]:
    """Print a line every ten seconds; returns all measured times in seconds."""
    loop, seen, everything = asyncio.get_running_loop(), time.perf_counter(), []
    cpu = {name: sum(process.cpu_times()[:2]) for name, process in services.items()}
    print(f"{'answers/s':>10}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'max ms':>9}   memory MB, CPU %", flush=True)
    while loop.time() < until:
        await asyncio.sleep(REPORT_SECONDS)
        span, found = time.perf_counter() - seen, seconds.copy()
        seconds.clear()
        seen = time.perf_counter()
        everything.extend(found)
        if not found:
            continue
        p50, p95, p99 = np.percentile(found, [50, 95, 99]) * 1e3
        figures = []
        for name, process in services.items():
            used = sum(process.cpu_times()[:2])
            figures.append(f"{name} {process.memory_info().rss / 2**20:.1f}, {(used - cpu[name]) / span:.0%}")
            cpu[name] = used
        line = f"{len(found) / span:10,.0f}{p50:9.1f}{p95:9.1f}{p99:9.1f}{max(found) * 1e3:9.1f}   {'; '.join(figures)}"
        print(line, flush=True)
    return everything


async def load(services: Services, processes: dict[str, psutil.Process], given: argparse.Namespace) -> list[float]:
    metadata = (("authorization", f"Bearer {services.gateway.key}"),)
    target = services.gateway.target
    channels = Channels(lambda: grpc.aio.insecure_channel(target, options=channel_options(target)))
    try:
        calls = [channels.take().stub.Watch(metadata=metadata) for _ in range(given.sessions)]
        for seed, call in enumerate(calls):
            await call.write(opening(seed))
        for call in calls:
            assert (await call.read()).HasField("opened")
        gc.freeze()
        begin = asyncio.get_running_loop().time() + 1.0
        moments = np.zeros(given.sessions) if given.burst else np.random.default_rng(1).uniform(0, 1, given.sessions)
        until, seconds = begin + given.seconds, []
        work = [session(call, begin + moment, until, seconds) for call, moment in zip(calls, moments, strict=True)]
        everything, *_ = await asyncio.gather(report(processes, seconds, until), *work)
    finally:
        for channel in channels.close():
            await channel.close()
    return everything + seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--burst", action="store_true", help="all sessions at the same moment")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as state, Services(Path(state)) as services:
        replica = services.start_replica()
        gateway = services.start_gateway([replica])
        services.wait_loaded()
        processes = {"gateway": gateway.process, "inference": psutil.Process(replica.service.pid)}
        found = np.array(event_loop.run(load(services, processes, given))) * 1e3
    p50, p99 = np.percentile(found, [50, 99])
    print(f"{len(found):,} answers of {given.sessions:,} sessions: p50 {p50:.1f} ms, p99 {p99:.1f} ms")


if __name__ == "__main__":
    main()
