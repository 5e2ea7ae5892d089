"""The pair under load, beside what it could do at best and beside the obvious server, in one run.

    python -m benchmarks.run            about five minutes
    python -m benchmarks.run --quick    about one

Writes benchmarks/results/<time>.json and prints a table. Ratios count; the machine's own speed drifts.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import market_inference
from benchmarks import workloads
from market.inference.v1 import inference_pb2 as pb
from market_inference.process import ServiceProcess
from models import forecast, indicators, sentiment

RESULTS = Path(__file__).parent / "results"
WORKLOADS = ("predict", "sentiment", "indicators")
BIG = ("predict-64x2000", "sentiment-100")
CONCURRENCIES = (1, 8, 64)
BATCH = 32


def load(target: str, workload: str, key: str = "", **options: Any) -> dict[str, Any]:
    """One load point in a process of its own."""
    arguments = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "benchmarks.load", "--target", target, "--workload", workload, *arguments]
    environment = {**os.environ, "MARKET_INFERENCE_API_KEY": key}
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def ceiling(workload: str, seconds: float) -> float:
    """Items a second of the engine alone, in process, at its best batch: no network, no queue."""
    model, items = _engine(workload)
    batch = [items[i % len(items)] for i in range(BATCH)]
    model.run(batch)
    count, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        model.run(batch)
        count += BATCH
    return count / seconds


def _engine(workload: str) -> tuple[Any, list[Any]]:
    requests = workloads.BY_NAME[workload]().requests
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


def overload(target: str, key: str, workload: str, best: float, seconds: float) -> list[dict[str, Any]]:
    """Goodput at the saturating load and at three times it, with a deadline of one second."""
    return [
        {"factor": factor, **load(target, workload, key, rate=best * factor, seconds=seconds, timeout=1.0)}
        for factor in (0.5, 1.0, 3.0)
    ]


def measure(options: argparse.Namespace, say: Any) -> dict[str, Any]:
    seconds = 2.0 if options.quick else 5.0
    rows: list[dict[str, Any]] = []
    result: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "points": rows,
    }
    result["ceilings"] = {name: ceiling(name, seconds) for name in WORKLOADS}
    with tempfile.TemporaryDirectory() as folder:
        plain = ServiceProcess("benchmarks.plain_server", {}, Path(folder) / "plain.log", lambda _: None)
        try:
            target = plain.wait_ready(60).listen
            for name in WORKLOADS:
                for concurrency in CONCURRENCIES:
                    say(f"plain server: {name}, {concurrency} callers")
                    rows.append({"server": "plain", **load(target, name, concurrency=concurrency, seconds=seconds)})
        finally:
            plain.stop(5)
        with market_inference.Pair(state=Path(folder) / "pair") as pair:
            pair.wait_loaded()
            for name in (*WORKLOADS, *([] if options.quick else BIG)):
                for concurrency in CONCURRENCIES if name in WORKLOADS else (4,):
                    say(f"the pair: {name}, {concurrency} callers")
                    point = load(pair.target, name, pair.key, concurrency=concurrency, seconds=seconds)
                    rows.append({"server": "pair", **point})
            if not options.quick:
                own = [row for row in rows if row["server"] == "pair" and row["workload"] == "sentiment"]
                best = max(row["calls_per_second"] for row in own)
                say("the pair: sentiment, overload")
                result["overload"] = overload(pair.target, pair.key, "sentiment", best, seconds)
    return result


def table(result: dict[str, Any]) -> Table:
    shown = Table(
        "workload", "callers", "pair calls/s", "p50 ms", "p99 ms", "plain calls/s", "pair / plain", "of ceiling"
    )
    plain = {(r["workload"], r["concurrency"]): r for r in result["points"] if r["server"] == "plain"}
    for row in (r for r in result["points"] if r["server"] == "pair"):
        other = plain.get((row["workload"], row["concurrency"]))
        top = result["ceilings"].get(row["workload"].split(" ")[0])
        shown.add_row(
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter points")
    console = Console()
    result = measure(parser.parse_args(), lambda what: console.print(what, style="dim"))
    console.print(table(result))
    for point in result.get("overload", ()):
        console.print(
            f"overload x{point['factor']:g}: {point['calls_per_second']:,.0f} answered in time a second, "
            f"p99 {point['latency_ms'].get('p99', float('nan')):.0f} ms, codes {point['codes']}"
        )
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{result['time'].replace(':', '')}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    console.print(f"written to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


if __name__ == "__main__":
    main()
