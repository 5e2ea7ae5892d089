"""The pair under load, compared with the engines alone (the ceiling) and with the obvious server, in one run.

    python -m benchmarks.run            about seven minutes
    python -m benchmarks.run --quick    about two and a half minutes

Writes benchmarks/results/<time>.json and prints tables. Compare ratios only, because the speed of a machine drifts.
"""

import argparse
import asyncio
import contextlib
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import stream, users, watch, workloads
from benchmarks.services import Gateway, Replica, Services
from market_inference.cli.process import ServiceProcess
from market_inference.contract.generated import inference_pb2 as pb
from models import forecast, indicators, sentiment
from runtime import loop as event_loop

RESULTS = Path(__file__).parent / "results"
WORKLOADS = ("predict", "sentiment", "indicators")
BIG = ("predict-64x2000", "sentiment-100")
TRANSPORTS = ("grpcio", "native")
CONCURRENCIES = (1, 8, 64)
BATCH = 32
SESSIONS = 1000

Point = dict[str, Any]


def load(target: str, workload: str, key: str = "", *, module: str = "benchmarks.load", **options: Any) -> Point:
    """Measure one load point in a child process."""
    arguments = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", module, "--target", target, "--workload", workload, *arguments]
    environment = {**os.environ, "MARKET_INFERENCE_API_KEY": key}
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def ceiling(workload: str, seconds: float) -> float:
    """Items per second of the engine alone, in process, in full batches: no network, no queue."""
    model, items = _engine(workload)
    batch = [items[i % len(items)] for i in range(BATCH)]
    model.run(batch)
    count, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        model.run(batch)
        count += BATCH
    return count / seconds


def _engine(workload: str) -> tuple[Any, list[Any]]:
    requests = [raw for _, raw in workloads.BY_NAME[workload]().requests]
    if workload == "predict":
        series = [pb.PredictRequest.FromString(raw).series[0] for raw in requests]
        return forecast.load("auto"), [forecast.Series(np.asarray(s.values), 10, workloads.LEVELS) for s in series]
    if workload == "sentiment":
        model = sentiment.load()
        texts = [pb.AnalyzeSentimentRequest.FromString(raw).texts[0] for raw in requests]
        return model, [chunk for chunks in model.prepare(texts) for chunk in chunks]
    specs = [indicators.Spec(name, {"timeperiod": period} if period else {}) for name, period in workloads.SIX]
    program = indicators.compile(specs)
    panels = [pb.ComputeIndicatorsRequest.FromString(raw).panels[0] for raw in requests]
    columns = [{c: np.asarray(getattr(p, c)) for c in indicators.COLUMNS} for p in panels]
    return indicators.load(), [indicators.Task(indicators.Panel(**c), program) for c in columns]


class Run:
    """The scenarios of one run, point by point."""

    def __init__(self, *, quick: bool, say: Callable[[str], None]) -> None:
        self._quick = quick
        self._seconds = 2.0 if quick else 3.0
        self._say = say
        self.points: list[Point] = []

    def measure(self) -> dict[str, Any]:
        """Run all scenarios; returns the content of the results file."""
        result: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "points": self.points,
        }
        result["ceilings"] = {name: ceiling(name, self._seconds) for name in WORKLOADS}
        with tempfile.TemporaryDirectory() as folder:
            self._plain(Path(folder))
            with _replica(Path(folder)) as (services, replica):
                for transport in TRANSPORTS if not self._quick else TRANSPORTS[-1:]:
                    with _gateway(services, replica, transport=transport) as gateway:
                        self._pair(transport, gateway)
                with _gateway(services, replica) as gateway:
                    result["users"] = self._users(gateway)
                if not self._quick:
                    with _gateway(services, replica, workers=2) as gateway:
                        for name in ("predict", "indicators"):
                            self._point("grpcio, 2 workers", name, gateway, concurrency=64)
                    with _gateway(services, replica) as gateway:
                        result["overload"] = self._overload(gateway)
                        self._say("stream against unary")
                        result["stream"] = _stream(gateway)
                        self._say(f"watch: {SESSIONS:,} sessions")
                        result["watch"] = _watch(services, gateway, replica)
        return result

    def _plain(self, folder: Path) -> None:
        plain = ServiceProcess("benchmarks.plain_server", {}, folder / "plain.log", lambda _: None)
        try:
            target = plain.wait_ready(60).listen
            for name in WORKLOADS:
                for concurrency in CONCURRENCIES:
                    self._say(f"plain server: {name}, {concurrency} callers")
                    self.points.append(
                        {"server": "plain", **load(target, name, concurrency=concurrency, seconds=self._seconds)}
                    )
        finally:
            plain.stop(5)

    def _pair(self, server: str, gateway: Gateway) -> None:
        for name in WORKLOADS:
            for concurrency in CONCURRENCIES:
                self._point(server, name, gateway, concurrency=concurrency)
        if not self._quick:
            self._point(server, "mix", gateway, concurrency=64)
            for name in BIG:
                self._point(server, name, gateway, concurrency=4)

    def _point(self, server: str, workload: str, gateway: Gateway, *, concurrency: int) -> None:
        self._say(f"{server}: {workload}, {concurrency} callers")
        point = load(gateway.target, workload, gateway.key, concurrency=concurrency, seconds=self._seconds)
        self.points.append({"server": server, **point})

    def _users(self, gateway: Gateway) -> list[Point]:
        """The client library's calls, on the default transport."""
        found = []
        for workload in users.WORKLOADS:
            for way, count in users.POINTS:
                self._say(f"the client library: {workload}, {way}/{count}")
                options = {"way": way, "count": count, "seconds": self._seconds}
                found.append(load(gateway.target, workload, gateway.key, module="benchmarks.users", **options))
        return found

    def _overload(self, gateway: Gateway) -> list[Point]:
        """Goodput at 0.5, 1 and 3 times the saturating load, with a deadline of one second."""
        self._say("sentiment, overload")
        best = max(
            p["calls_per_second"] for p in self.points if p["workload"] == "sentiment" and p["server"] != "plain"
        )
        options = {"seconds": 2 * self._seconds, "timeout": 1.0}
        return [
            {"factor": factor, **load(gateway.target, "sentiment", gateway.key, rate=best * factor, **options)}
            for factor in (0.5, 1.0, 3.0)
        ]


@contextmanager
def _replica(folder: Path) -> Iterator[tuple[Services, Replica]]:
    state = folder / "pair"
    state.mkdir()
    with Services(state) as services:
        yield services, services.start_local_replica()


@contextmanager
def _gateway(services: Services, replica: Replica, **settings: object) -> Iterator[Gateway]:
    gateway = services.start_gateway([replica], **settings)
    services.wait_loaded()
    try:
        yield gateway
    finally:
        gateway.service.stop(10)


def _stream(gateway: Gateway) -> dict[str, float]:
    """Requests per second of streams, as ratios to unary calls."""
    runs = asyncio.run(stream.compare(gateway, rounds=3, count=2000, in_flight=256))
    unary = np.median([one.rate for one in runs["unary"]])
    return {name: float(np.median([one.rate for one in found]) / unary) for name, found in runs.items()}


def _watch(services: Services, gateway: Gateway, replica: Replica) -> dict[str, float]:
    """Milliseconds from bar to answer, for sessions with one bar per second."""
    processes = {"gateway": gateway.process, "inference": psutil.Process(replica.service.pid)}
    given = argparse.Namespace(sessions=SESSIONS, seconds=12.0, burst=False)
    with contextlib.redirect_stdout(io.StringIO()):
        found = np.array(event_loop.run(watch.load(services, processes, given))) * 1e3
    p50, p99 = np.percentile(found, [50, 99])
    return {"sessions": SESSIONS, "answers": len(found), "p50_ms": float(p50), "p99_ms": float(p99)}


def table(result: dict[str, Any]) -> Table:
    """One row per point, compared with the plain server and the ceiling."""
    shown = Table(
        "server", "workload", "callers", "calls/s", "p50 ms", "p99 ms", "plain calls/s", "to plain", "of ceiling"
    )
    plain = {(r["workload"], r["concurrency"]): r for r in result["points"] if r["server"] == "plain"}
    for row in (r for r in result["points"] if r["server"] != "plain"):
        other = plain.get((row["workload"], row["concurrency"]))
        top = result["ceilings"].get(row["workload"].split(" ")[0])
        shown.add_row(
            row["server"],
            row["workload"],
            str(row["concurrency"]),
            f"{row['calls_per_second']:,.0f}",
            f"{row['latency_ms'].get('p50', float('nan')):.2f}",
            f"{row['latency_ms'].get('p99', float('nan')):.2f}",
            f"{other['calls_per_second']:,.0f}" if other else "",
            f"{row['calls_per_second'] / other['calls_per_second']:.2f}" if other else "",
            f"{row['items_per_second'] / top:.0%}" if top else "",
        )
    return shown


def report(result: dict[str, Any], console: Console) -> None:
    console.print("the client library's calls, default transport")
    for point in result["users"]:
        console.print(users.line(point), highlight=False)
    console.print(table(result))
    for point in result.get("overload", ()):
        console.print(
            f"overload x{point['factor']:g}: {point['calls_per_second']:,.0f} answered in time a second, "
            f"p99 {point['latency_ms'].get('p99', float('nan')):.0f} ms, codes {point['codes']}"
        )
    for name, ratio in result.get("stream", {}).items():
        console.print(f"{name}: {ratio:.2f}x unary")
    if seen := result.get("watch"):
        console.print(
            f"watch: {seen['sessions']:,} sessions, a bar a second each: "
            f"p50 {seen['p50_ms']:.1f} ms, p99 {seen['p99_ms']:.1f} ms"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter points, the native transport only")
    console = Console()
    result = Run(quick=parser.parse_args().quick, say=lambda what: console.print(what, style="dim")).measure()
    report(result, console)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{result['time'].replace(':', '')}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    console.print(f"written to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


if __name__ == "__main__":
    main()
