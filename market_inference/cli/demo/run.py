"""The demo from beginning to end.

Owns the order of the steps. The files beside this one own bars, chart, tables and the walk forward.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from market_inference.cli.commands.loading import wait_loaded
from market_inference.cli.demo import bars as market
from market_inference.cli.demo import batches, chart, report, walk
from market_inference.cli.demo.bars import Bars
from market_inference.cli.demo.headlines import HEADLINES
from market_inference.cli.demo.steps import Steps
from market_inference.cli.pair import Pair
from market_inference.client.answers import Answers, Indicators, Sentiment
from market_inference.client.arrays import Floats
from market_inference.client.client import Client
from market_inference.client.forecast import Forecast

CONTEXT = 750
# Seconds for a call: on a busy laptop the demo must be slow, not fail.
PATIENCE = 120.0
INDICATORS = ("RSI", "MACD", "ATR", "BBANDS:timeperiod=20")


def run(output: Path, horizon: int, device: str, console: Console) -> None:
    """Start a pair, send real input, print the tables, write the chart to `output`, end the pair.

    Raises MarketInferenceError, ServiceProcessError or TimeoutError after the pair has ended.
    """
    steps = Steps(console)
    with steps.step("Read the bars") as step:
        known = market.load()
        seen = [one.until(len(one) - horizon, CONTEXT) for one in known]
        later = [one.until(len(one), horizon) for one in known]
        step.detail = (
            f"{sum(map(len, known)):,} real daily bars of {len(known)} stocks; the last {horizon} days held out"
        )
    with tempfile.TemporaryDirectory(prefix="market-inference-") as state:
        pair = Pair(state=Path(state), device=device)
        try:
            with steps.step("Start the inference service and the gateway") as step:
                pair.start()
                step.detail = f"two processes; gRPC on {pair.target}"
            with steps.step("Load the models", spinner=False) as step:
                models = wait_loaded(pair, console)
                step.detail = ", ".join(f"{model.engine} {model.name} {model.state}" for model in models)
            with pair.client(timeout=PATIENCE) as client:
                answers = _ask(client, steps, seen, horizon)
            _walk(pair, steps, known, horizon)
            with steps.step("Stop both"):
                pair.close()
        finally:
            pair.close()
    sample = _write_sample(known[0], output)
    _show(console, steps, seen, later, answers, output, sample)


Found = tuple[Answers[Forecast], Answers[Sentiment], Answers[Indicators]]


def _ask(client: Client, steps: Steps, seen: list[Bars], horizon: int) -> Found:
    with steps.step("Forecast") as step:
        forecasts = client.predict({one.symbol: one.closes for one in seen}, horizon, quantiles=chart.LEVELS)
        step.detail = (
            f"one call: {len(seen)} series of up to {CONTEXT} closes, {horizon} steps, {len(chart.LEVELS)} quantiles"
        )
    with steps.step("Read the headlines") as step:
        moods = client.sentiment([text for _, text in HEADLINES])
        step.detail = f"one call: {len(HEADLINES)} texts, model {moods[0].model}"
    with steps.step("Compute the indicators") as step:
        indicators = client.indicators({one.symbol: one.columns for one in seen}, INDICATORS, last=1)
        step.detail = f"one call: {len(INDICATORS)} TA-Lib functions on {len(seen)} panels, newest values only"
    return forecasts, moods, indicators


def _walk(pair: Pair, steps: Steps, known: list[Bars], horizon: int) -> None:
    with steps.step("Walk forward through the past") as step:
        metrics = pair.metrics["inference"]
        before = batches.read(metrics, "forecast")
        found = walk.run(pair, known, horizon, CONTEXT, PATIENCE)
        ran = batches.read(metrics, "forecast").since(before)
        step.detail = (
            f"{found.forecasts} calls, up to {walk.IN_FLIGHT} in flight, ran as {ran.batches:.0f} batches "
            f"({ran.mean:.1f} series each); the 80% interval held {found.held:.0%} of {found.outcomes:,} closes"
        )


def _write_sample(bars: Bars, output: Path) -> Path:
    """The newest bars of a stock as a CSV file beside the chart, to try the other commands with; never overwrites."""
    file = output.with_name(f"{bars.symbol}.csv")
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        newest = bars.until(len(bars), CONTEXT)
        rows = zip(newest.days, *(newest.columns[name].tolist() for name in newest.columns), strict=True)
        lines = [",".join(("date", *newest.columns)), *(",".join(map(str, row)) for row in rows)]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def _show(
    console: Console, steps: Steps, seen: list[Bars], later: list[Bars], answers: Found, output: Path, sample: Path
) -> None:
    forecasts, moods, indicators = answers
    realised: list[Floats] = [one.closes for one in later]
    with steps.step("Draw the chart") as step:
        panels = [
            chart.Panel(
                before.name,
                before.days,
                before.closes,
                forecast,
                after.days,
                after.closes,
            )
            for before, after, forecast in zip(seen, later, forecasts.answered.values(), strict=True)
        ]
        horizon, day = forecasts[0].horizon, seen[0].days[-1]
        chart.draw(
            panels, f"{horizon}-day forecasts made at the close of {day:%d %B %Y}, and what came afterwards", output
        )
        step.detail = str(output)
    for shown in (
        report.forecasts(seen, realised, forecasts),
        report.headlines(moods),
        report.indicators(seen, indicators, moods),
        steps.summary(),
    ):
        console.print()
        console.print(shown)
    console.print(_next_steps(output, sample), soft_wrap=True)


def _next_steps(output: Path, sample: Path) -> str:
    """Three commands to try, with the path of the command where the environment is not active."""
    folder = "" if shutil.which("market-inference") else os.path.relpath(Path(sys.executable).parent) + "/"
    return f"""
The chart is at {output}. What to try next:
  {folder}market-inference serve                  keep the service running; its page is http://127.0.0.1:8472/
  {folder}market-inference predict --csv {sample}   forecast bars from a file, these or your own
  {folder}python -c "import market_inference as m; help(m.Client)"
"""
