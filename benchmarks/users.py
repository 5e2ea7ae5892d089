"""The speed of users' code: the client library's calls, with arrays going in and every answer's arrays read.

    python -m benchmarks.users --target HOST:PORT --workload predict --way asyncio --count 64
    python -m benchmarks.users --pair

The ways, with COUNT for 64: `asyncio` (64 callers of one AsyncClient), `threads` (64 threads of one Client), `stream`
(64 calls of one stream() in flight), `items` (one caller, 64 items in a call, every answer read), `arrays` (the
same items, read as one array, the way for a universe). Encoding, decoding and reading are inside the time. Prints a
JSON object; `--pair` starts a pair and prints a table of all ways.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import workloads
from benchmarks.services import Services
from market_inference import AsyncClient, Client
from market_inference.client.inputs.names import BAR_COLUMNS

WAYS: Final = ("asyncio", "threads", "stream", "items", "arrays")
POINTS: Final = (
    *(("asyncio", count) for count in (1, 8, 64)),
    ("threads", 8),
    ("stream", 512),
    *((way, count) for count in (32, 256) for way in ("items", "arrays")),
)
WORKLOADS: Final = ("predict", "indicators")
SPECS: Final = [(name, {"timeperiod": period} if period else {}) for name, period in workloads.SIX]
COLUMNS: Final = ("RSI", "MACD.macd", "MACD.macdsignal", "MACD.macdhist", "BBANDS.middleband", "ATR", "SMA", "EMA")
HORIZON: Final = 10
WARM_UP_SECONDS: Final = 0.6


class Work:
    """The calls of a workload; `client` is a Client, an AsyncClient or a stream."""

    def __init__(self, name: str, model: str) -> None:
        self._predict = name == "predict"
        self._model = model
        panels = [workloads.panel(seed) for seed in range(workloads.DISTINCT)]
        self._bars = [{column: np.array(getattr(panel, column)) for column in BAR_COLUMNS} for panel in panels]

    def ask(self, client: Any, number: int) -> Any:
        """Call with a single item."""
        bars = self._bars[number % len(self._bars)]
        return self.call(client, bars["close"] if self._predict else bars)

    def universe(self, count: int) -> list[Any]:
        """The items of a call with many."""
        found = [self._bars[at % len(self._bars)] for at in range(count)]
        return [bars["close"] for bars in found] if self._predict else found

    def call(self, client: Any, items: Any) -> Any:
        """Call with a single item or with many."""
        if self._predict:
            return client.predict(items, HORIZON, quantiles=workloads.LEVELS, model=self._model)
        return client.indicators(items, SPECS)

    def touch(self, answer: Any) -> None:
        """Read a single answer."""
        _ = answer.quantiles if self._predict else answer["RSI"]

    def touch_arrays(self, answers: Any) -> None:
        """Read all answers as arrays."""
        if self._predict:
            _ = answers.point, answers.quantiles
        else:
            for name in COLUMNS:
                answers.column(name)


class Clock:
    """The latencies of calls, and the CPU time of the process, from start() to result()."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began = self._cpu = 0.0

    def start(self) -> None:
        self.seconds.clear()
        self._began, self._cpu = time.perf_counter(), time.process_time()

    def result(self, items: int) -> dict[str, float]:
        """`items`: per call."""
        passed, cpu = time.perf_counter() - self._began, time.process_time() - self._cpu
        p50, p99 = np.percentile(self.seconds, [50, 99]) * 1e3
        done = len(self.seconds) * items
        return {
            "items_per_second": done / passed,
            "p50_ms": float(p50),
            "p99_ms": float(p99),
            "client_us_per_item": cpu / done * 1e6,
        }


async def _callers(work: Work, clock: Clock, client: Any, count: int, seconds: float) -> None:
    async def caller(number: int, end: float) -> None:
        while (began := time.perf_counter()) < end:
            number += 1
            work.touch(await work.ask(client, number))
            clock.seconds.append(time.perf_counter() - began)

    for length in (WARM_UP_SECONDS, seconds):
        clock.start()
        await asyncio.gather(*(caller(at * 7, time.perf_counter() + length) for at in range(count)))


async def in_loop(work: Work, clock: Clock, options: argparse.Namespace) -> None:
    """Callers in an event loop, on the client or on a stream."""
    async with AsyncClient(options.target) as client:
        if options.way == "asyncio":
            await _callers(work, clock, client, options.count, options.seconds)
        else:
            async with client.stream() as stream:
                await _callers(work, clock, stream, options.count, options.seconds)


def in_threads(work: Work, clock: Clock, options: argparse.Namespace) -> None:
    """Callers in threads with a shared client."""
    with Client(options.target) as client:

        def caller(number: int, end: float) -> None:
            while (began := time.perf_counter()) < end:
                number += 1
                work.touch(work.ask(client, number))
                clock.seconds.append(time.perf_counter() - began)

        for length in (WARM_UP_SECONDS, options.seconds):
            clock.start()
            end = time.perf_counter() + length
            callers = [threading.Thread(target=caller, args=(at * 7, end)) for at in range(options.count)]
            for thread in callers:
                thread.start()
            for thread in callers:
                thread.join()


def in_bulk(work: Work, clock: Clock, options: argparse.Namespace) -> None:
    """One caller, many items in a call."""
    items = work.universe(options.count)
    with Client(options.target) as client:
        for length in (WARM_UP_SECONDS, options.seconds):
            clock.start()
            end = time.perf_counter() + length
            while (began := time.perf_counter()) < end:
                answers = work.call(client, items)
                if options.way == "arrays":
                    work.touch_arrays(answers)
                else:
                    for answer in answers:
                        work.touch(answer)
                clock.seconds.append(time.perf_counter() - began)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure a single point."""
    work, clock = Work(options.workload, options.model), Clock()
    if options.way in ("asyncio", "stream"):
        asyncio.run(in_loop(work, clock, options))
    else:
        (in_threads if options.way == "threads" else in_bulk)(work, clock, options)
    many = options.count if options.way in ("items", "arrays") else 1
    return {"workload": options.workload, "way": options.way, "count": options.count, **clock.result(many)}


def line(point: dict[str, Any]) -> str:
    """A point for people."""
    return (
        f"{point['workload']:11}{point['way']:>8}/{point['count']:<4}{point['items_per_second']:10,.0f} items/s"
        f"{point['p50_ms']:9.2f} ms p50{point['p99_ms']:9.2f} ms p99{point['client_us_per_item']:9,.0f} us client CPU"
    )


def _pair(options: argparse.Namespace) -> None:
    """Every point in a separate process, like a user's program."""
    with tempfile.TemporaryDirectory() as state, Services(Path(state)) as services:
        gateway = services.start_gateway([services.start_local_replica()])
        services.wait_loaded("forecast", "indicators")
        fixed = [f"--target={gateway.target}", f"--seconds={options.seconds}", f"--model={options.model}"]
        for workload in WORKLOADS:
            for way, count in POINTS:
                point = [f"--workload={workload}", f"--way={way}", f"--count={count}"]
                command = [sys.executable, "-m", "benchmarks.users", *fixed, *point]
                environment = {**os.environ, "MARKET_INFERENCE_API_KEY": gateway.key}
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
                print(line(json.loads(done.stdout)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", help="host:port; the key is read from $MARKET_INFERENCE_API_KEY")
    parser.add_argument("--pair", action="store_true", help="start a pair, and print all ways")
    parser.add_argument("--workload", choices=WORKLOADS, default="predict")
    parser.add_argument("--way", choices=WAYS, default="asyncio")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--model", default="vol_rw", help="the forecaster")
    options = parser.parse_args()
    if options.pair:
        _pair(options)
        return
    if not options.target:
        parser.error("--target or --pair is needed")
    json.dump(measure(options), sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
