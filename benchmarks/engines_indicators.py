"""Indicators compared with a loop over TA-Lib's Python package, in one process on one thread.

Prints speed ratios to the loop; above 1 is faster. Every ratio is the median of interleaved rounds, because absolute
times on a shared machine vary.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import talib
import torch

from models.indicators import Panel, Spec, Task, compile, load  # noqa: A004 - as re.compile
from models.indicators.kernels import dispatch
from models.indicators.program import Program

SIX = ("SMA", "EMA", "RSI", "MACD", "BBANDS", "ATR")
ROUNDS = 5

Work = Callable[[], object]


def panels(count: int, bars: int) -> list[Panel]:
    """Random walks with highs, lows and volumes, seeded."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, bars)))
        spread = 1 + np.abs(rng.normal(0, 0.005, (2, bars)))
        made.append(Panel(close.copy(), close * spread[0], close / spread[1], close, rng.uniform(1e4, 1e6, bars)))
    return made


def loop(program: Program, among: Sequence[Panel]) -> Work:
    """TA-Lib's Python package, called for one panel after another with prepared arguments."""
    calls = []
    for panel in among:
        for call in program.calls:
            columns = [getattr(panel, column) for column in call.function.columns]
            pairs = zip(call.values, call.function.parameters, strict=True)
            values = [int(value) if parameter.integer else value for value, parameter in pairs]
            calls.append((getattr(talib, call.function.name), (*columns, *values)))

    def run() -> None:
        for function, arguments in calls:
            function(*arguments)

    return run


def ratio(ours: Work, obvious: Work, repeat: int = 1) -> float:
    """The speed of `ours` divided by the speed of `obvious`."""

    def seconds(work: Work) -> float:
        start = time.perf_counter()
        for _ in range(repeat):
            work()
        return time.perf_counter() - start

    ours(), obvious()
    return statistics.median(seconds(obvious) / seconds(ours) for _ in range(ROUNDS))


def row(label: str, value: float) -> dict[str, float]:
    """Print one line and return label and value."""
    print(f"{label:<58} {value:6.2f}x", flush=True)
    return {label: value}


def one_panel() -> dict[str, float]:
    """The six most used functions, one panel at a time."""
    ratios = {}
    program = compile([Spec(name) for name in SIX])
    for bars in (256, 1000, 2000, 10_000):
        (panel,) = panels(1, bars)
        model, tasks = load("cpu", backend="talib"), [Task(panel, program)]
        work = loop(program, [panel])
        ratios |= row(f"talib, six functions, one panel of {bars} bars", ratio(partial(model.run, tasks), work, 200))
    live = compile([Spec(name, last=1) for name in SIX])
    (panel,) = panels(1, 256)
    model, tasks = load("cpu", backend="talib"), [Task(panel, live)]
    work = loop(program, [panel])
    return ratios | row("talib, the same at 256 bars, last only", ratio(partial(model.run, tasks), work, 200))


def many_panels(count: int, bars: int) -> dict[str, float]:
    """Every kernel over a batch, and all kernels in one program."""
    ratios = {}
    among = panels(count, bars)
    model = load("cpu", backend="torch")
    names = sorted(dispatch.KERNELS)
    for name in names:
        program = compile([Spec(name, last=1)])
        tasks = [Task(panel, program) for panel in among]
        ratios |= row(
            f"torch, {name}, {count} panels of {bars} bars", ratio(partial(model.run, tasks), loop(program, among))
        )
    program = compile([Spec(name, last=1) for name in names])
    tasks = [Task(panel, program) for panel in among]
    every = ratio(partial(model.run, tasks), loop(program, among))
    return ratios | row(f"torch, all of these, {count} panels of {bars} bars", every)


def reason(rows: int, bars: int) -> None:
    """The reason for slower kernels on a CPU: the time per bar of TA-Lib's single pass and of one pass of a kernel."""
    among = panels(rows, bars)
    x = torch.from_numpy(np.stack([np.asarray(panel.close) for panel in among]))
    out = torch.empty_like(x)

    def nanoseconds(work: Work) -> float:
        times = []
        for _ in range(50):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return statistics.median(times) / (rows * bars) * 1e9

    for name in ("SMA", "RSI", "MACD"):
        print(f"TA-Lib, {name}: {nanoseconds(loop(compile([Spec(name)]), among)):.1f} ns a bar")
    for name, work in {"addition": torch.add, "division": torch.div}.items():
        print(f"torch, one {name} over {rows} x {bars}: {nanoseconds(partial(work, x, x, out=out)):.1f} ns a bar")


def main() -> dict[str, float]:
    """Print and return the ratios."""
    torch.set_num_threads(1)
    ratios = one_panel() | many_panels(1_000, 2_000)
    reason(16, 2_000)
    return ratios


if __name__ == "__main__":
    main()
