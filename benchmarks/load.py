"""A load generator in one asyncio process, so that the CPU time of the client is measured separately.

    python -m benchmarks.load --target HOST:PORT --workload predict --concurrency 64 --seconds 5
    python -m benchmarks.load --target HOST:PORT --workload sentiment --rate 200 --seconds 5 --timeout 1

Prints one JSON object. Closed loop: a number of callers with one call in flight each. Open loop (--rate): calls start
at Poisson times, independent of answers, and are timed from the due time, so that a stall counts for every delayed call
(no coordinated omission). Latencies go into an HDR histogram with three digits.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import grpc
from hdrh.histogram import HdrHistogram

from benchmarks import workloads
from runtime import loop as event_loop

_UNITS = 1e6  # the histogram counts microseconds


@dataclass
class Tally:
    """The results inside the measured window."""

    histogram: HdrHistogram = field(default_factory=lambda: HdrHistogram(1, 60_000_000, 3))
    codes: Counter[str] = field(default_factory=Counter)
    refused: HdrHistogram = field(default_factory=lambda: HdrHistogram(1, 60_000_000, 3))

    def take(self, code: str, seconds: float) -> None:
        self.codes[code] += 1
        (self.histogram if code == "OK" else self.refused).record_value(int(seconds * _UNITS))

    def result(self, seconds: float, items: int) -> dict[str, Any]:
        good = self.codes["OK"]
        return {
            "calls_per_second": good / seconds,
            "items_per_second": good * items / seconds,
            "codes": dict(self.codes),
            "latency_ms": _percentiles(self.histogram),
            "refusal_ms": _percentiles(self.refused),
        }


def _percentiles(histogram: HdrHistogram) -> dict[str, float]:
    if not histogram.get_total_count():
        return {}
    return {f"p{p:g}": histogram.get_value_at_percentile(p) / 1e3 for p in (50, 90, 99, 99.9, 100)}


class Caller:
    """Sends the calls of a workload over one channel and counts the results."""

    def __init__(self, channel: grpc.aio.Channel, workload: workloads.Workload, metadata: Any, timeout: float) -> None:
        methods = {path: channel.unary_unary(path) for path, _ in workload.requests}
        self._requests = [(methods[path], raw) for path, raw in workload.requests]
        self._metadata = metadata
        self._timeout = timeout
        self.tally = Tally()
        self.window = (0.0, 0.0)

    async def once(self, number: int, due: float) -> None:
        code = "OK"
        try:
            call, request = self._requests[number % len(self._requests)]
            await call(request, metadata=self._metadata, timeout=self._timeout)
        except grpc.RpcError as error:
            code = error.code().name
        now = time.perf_counter()
        if self.window[0] <= now <= self.window[1]:
            self.tally.take(code, now - due)


async def closed(caller: Caller, concurrency: int, seconds: float, warmup: float) -> None:
    """Closed loop with `concurrency` callers."""
    start = time.perf_counter() + warmup
    caller.window = (start, start + seconds)

    async def loop(number: int) -> None:
        while (now := time.perf_counter()) < caller.window[1]:
            await caller.once(number, now)
            number += concurrency

    await asyncio.gather(*(loop(number) for number in range(concurrency)))


async def opened(caller: Caller, rate: float, seconds: float, warmup: float) -> None:
    """Open loop with Poisson arrivals at `rate` calls per second."""
    dice, tasks = random.Random(11), set()
    due = time.perf_counter()
    caller.window = (due + warmup, due + warmup + seconds)
    number = 0
    while due < caller.window[1]:
        due += dice.expovariate(rate)
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(caller.once(number, due))
        number += 1
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    caller.window = (caller.window[0], float("inf"))  # a call sent in the window counts, however late the answer
    await asyncio.gather(*tasks)


async def run(options: argparse.Namespace) -> dict[str, Any]:
    workload = workloads.BY_NAME[options.workload]()
    key = os.environ.get("MARKET_INFERENCE_API_KEY", "")
    metadata = (("authorization", f"Bearer {key}"), ("x-priority", options.priority)) if key else None
    limits = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(options.target, options=limits) as channel:
        caller = Caller(channel, workload, metadata, options.timeout)
        cpu = time.process_time()
        if options.rate:
            await opened(caller, options.rate, options.seconds, options.warmup)
        else:
            await closed(caller, options.concurrency, options.seconds, options.warmup)
        cpu = (time.process_time() - cpu) / (options.seconds + options.warmup)
    return {
        "workload": workload.name,
        "concurrency": options.concurrency if not options.rate else None,
        "rate": options.rate,
        "client_cores": round(cpu, 2),
        **caller.tally.result(options.seconds, workload.items),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", required=True, help="host:port; the key is read from $MARKET_INFERENCE_API_KEY")
    parser.add_argument("--workload", choices=sorted(workloads.BY_NAME), required=True)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0.0, help="open loop at so many calls a second")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warmup", type=float, default=1.0)
    parser.add_argument("--timeout", type=float, default=30.0)
    parser.add_argument("--priority", choices=("interactive", "batch"), default="interactive")
    json.dump(event_loop.run(run(parser.parse_args())), sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
