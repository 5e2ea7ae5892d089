"""`market-inference watch`: the bars of a file replayed through a live session, with a live table of the answers."""

import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from market_inference.cli.commands.call import Service, service_options
from market_inference.cli.commands.files import Reading, reading_options
from market_inference.cli.commands.options import Number, Whole
from market_inference.cli.printable import echo

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from market_inference.client.files import Bars
    from market_inference.client.session import Update
    from market_inference.client.watch import Watch

EXAMPLES = """
\b
Examples:
  market-inference watch --csv AAPL.csv --speed max
  market-inference watch --csv AAPL.csv --speed max --indicator RSI --indicator SMA:timeperiod=50 --horizon 5 --every 10
  market-inference watch --symbol AAPL --csv minutes.csv --interval 60 --speed 60x
"""


# Bars further apart than this leave the screen unchanged for so long that the command looks hung.
SLOW_SECONDS = 3.0


class Speed(click.ParamType):  # type: ignore[type-arg]  # generic in click's stubs alone
    """A multiple of real time: `100x` or `100`; `max` (infinity) does not wait."""

    name = "speed"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).lower()
        try:
            speed = math.inf if text == "max" else float(text.removesuffix("x"))
        except ValueError:
            speed = 0.0
        if not speed > 0 or (math.isinf(speed) and text != "max"):
            self.fail(f"{value!r} is no speed such as 100x, or max", param, ctx)
        return speed


@click.command(epilog=EXAMPLES)
@click.option(
    "--csv",
    "file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    required=True,
    metavar="FILE",
    help="Bars, oldest first; - is standard input.",
)
@click.option("--symbol", default="", help="The instrument; by default the file's name.")
@click.option(
    "--indicator",
    "indicators",
    multiple=True,
    default=("RSI", "MACD", "BBANDS"),
    show_default=True,
    help="A TA-Lib function, as for `indicators`. Repeatable.",
)
@click.option("--history", type=Whole(min=1), default=100, show_default=True, help="Bars that open the session.")
@click.option("--horizon", type=Whole(min=0), default=0, show_default=True, help="Bars ahead to forecast; 0 for none.")
@click.option("--every", type=Whole(min=1), default=1, show_default=True, help="Forecast at every n-th bar.")
@click.option("--speed", type=Speed(), default="1x", show_default=True, help="A multiple of real time, or max.")
@click.option(
    "--interval",
    type=Number(above=0),
    default=1.0,
    show_default=True,
    help="Seconds between two bars in a file without times.",
)
@reading_options
@service_options
def watch(
    service: Service,
    file: str,
    symbol: str,
    indicators: tuple[str, ...],
    history: int,
    horizon: int,
    every: int,
    speed: float,
    interval: float,
    reading: Reading,
) -> None:
    """Replay bars through a live session.

    The first --history bars open the session; each further bar is sent when due. Without times in the file, bars are
    --interval seconds apart. Times without a time zone are taken as UTC.
    """
    from market_inference.client.session import ForecastEvery

    found = reading.bars(file, symbol)
    bars = {name: values.tolist() for name, values in found.items()}
    times = _times(found, interval)
    if not 1 <= history < len(times):
        raise click.UsageError(f"--history must be between 1 and {len(times) - 1}: the file has {len(times)} bars")
    if note := _pace(times[history:], speed):
        echo(f"Note: {note}", err=True)
    forecast = ForecastEvery(horizon, quantiles=(0.1, 0.5, 0.9), every=every) if horizon else None
    started = {name: values[:history] for name, values in bars.items()}
    with (
        service.client() as client,
        client.watch(
            symbol or found.symbol, started, times=times[:history], indicators=indicators, forecast=forecast
        ) as session,
    ):
        _replay(session, symbol or found.symbol, bars, times, history, speed)


def _pace(times: list[datetime], speed: float) -> str:
    """A note for a replay whose bars come so slowly that the command looks hung; else ""."""
    total = (times[-1] - times[0]).total_seconds() / speed
    if total / len(times) < SLOW_SECONDS:
        return ""
    each, whole = timedelta(seconds=round(total / len(times))), timedelta(seconds=round(total))
    return (
        f"at {speed:g}x a bar comes about every {each}, and the {len(times)} bars take {whole}; "
        "--speed max replays without waiting"
    )


def _replay(
    session: "Watch", symbol: str, bars: dict[str, list[float]], times: list[datetime], first: int, speed: float
) -> None:
    """Send every bar when its time has come and show each answer; the last table stays on the screen."""
    from rich.live import Live

    from market_inference.cli.commands.output import console

    out = console()
    shown: RichTable | None = None
    with Live(console=out, auto_refresh=False, transient=not out.is_terminal) as live:
        for at in _in_time(times, first, speed):
            session.append({name: values[at] for name, values in bars.items()}, time=times[at])
            update = next(session)
            shown = _table(symbol, times[at], bars["close"][at], at + 1, len(times), update)
            if out.is_terminal:
                live.update(shown, refresh=True)
    if shown is not None and not out.is_terminal:
        out.print(shown)


def _in_time(times: list[datetime], first: int, speed: float) -> Iterator[int]:
    """The places of the bars from `first` on, each when it is due."""
    began = time.monotonic()
    for at in range(first, len(times)):
        due = (times[at] - times[first]).total_seconds() / speed
        time.sleep(max(0.0, began + due - time.monotonic()))
        yield at


def _table(symbol: str, instant: datetime, close: float, at: int, of: int, update: "Update") -> "RichTable":
    from market_inference.cli.commands.output import number, table

    shown = table(f"{symbol or 'Bars'}  {instant:%Y-%m-%d %H:%M:%S}", "value", "now", caption=f"bar {at} of {of}")
    shown.add_row("close", number(close))
    if update.error is not None:
        shown.add_row("refused", f"{update.error}")
    for name, value in update.items():
        shown.add_row(name, number(value))
    if update.forecast is not None:
        lower, upper = update.forecast.interval(0.8)
        shown.add_row(
            f"in {update.forecast.horizon} bars",
            f"{number(update.forecast.point[-1])} ({number(lower[-1])} to {number(upper[-1])})",
        )
        for found in update.forecast.warnings:
            shown.add_row("warning", found.message)
    return shown


def _times(bars: "Bars", interval: float) -> list[datetime]:
    """The opening time of each bar, ascending, in UTC; without times in the file, times that end now."""
    if bars.times is not None:
        micros: list[datetime] = bars.times.astype("datetime64[us]").tolist()
        return [one.replace(tzinfo=UTC) for one in micros]
    size = len(bars["close"])
    start = datetime.now(UTC) - timedelta(seconds=interval * size)
    return [start + timedelta(seconds=interval * at) for at in range(size)]
