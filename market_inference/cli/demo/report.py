"""The demo's tables.

Owns rows, columns and captions; run.py passes the answers.
"""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from rich.table import Table
from rich.text import Text

from market_inference.cli.commands.output import number, table
from market_inference.cli.demo.bars import Bars
from market_inference.cli.demo.headlines import HEADLINES
from market_inference.client.answers import Answers, Indicators, Sentiment
from market_inference.client.arrays import Floats
from market_inference.client.forecast import Forecast

SHARE = 0.8
_CENTS = 2
"""The decimals of all prices: dollars, in columns that hold different stocks."""
LABEL_STYLES = {"negative": "red", "neutral": "dim", "positive": "green"}


def forecasts(seen: Sequence[Bars], later: Sequence[Floats], found: Answers[Forecast]) -> Table:
    """One row per symbol: the end of the forecast beside the realised close."""
    days = found[0].horizon
    shown = table(
        f"Closes {days} trading days after {seen[0].days[-1]:%d %B %Y}, as forecast on that day",
        "symbol",
        "close",
        "median",
        "80% interval",
        "came true",
        "inside",
        "backtests",
        caption=(
            "Backtests: how often the 80% interval held earlier in the same series. A flat median means that no "
            "structure beats a random walk; the interval is the forecast."
        ),
    )
    for bars, closes, one in zip(seen, later, found.answered.values(), strict=True):
        lower, upper = (path[-1] for path in one.interval(SHARE))
        inside = lower <= closes[-1] <= upper
        shown.add_row(
            bars.symbol,
            number(bars.closes[-1], _CENTS),
            number(one.point[-1], _CENTS),
            f"{number(lower, _CENTS)} to {number(upper, _CENTS)}",
            number(closes[-1], _CENTS),
            Text("yes", style="green") if inside else Text("no", style="red"),
            f"{one.coverage.measured:.0%} of {one.coverage.origins}" if one.coverage.origins else "none",
        )
    return shown


def headlines(found: Answers[Sentiment]) -> Table:
    """One row per headline."""
    shown = table("Headlines, written for this demo", "symbol", "headline", "sentiment", "score", left=3)
    for (symbol, text), one in zip(HEADLINES, found.answered.values(), strict=True):
        style = LABEL_STYLES[one.label]
        shown.add_row(symbol, text, Text(one.label, style=style), f"{one.score:+.2f}")
    return shown


def indicators(seen: Sequence[Bars], found: Answers[Indicators], moods: Answers[Sentiment]) -> Table:
    """One row per symbol: the newest values beside the mean sentiment of the symbol's headlines."""
    scores = defaultdict(list)
    for (symbol, _), mood in zip(HEADLINES, moods.answered.values(), strict=True):
        scores[symbol].append(mood.score)
    shown = table(
        f"Indicators at the close of {seen[0].days[-1]:%d %B %Y}",
        "symbol",
        "RSI 14",
        "MACD histogram",
        "ATR 14 / close",
        "Bollinger",
        "headlines",
        caption="Bollinger: the close between the lower band, 0%, and the upper, 100%. Headlines: their mean score.",
    )
    for bars, one in zip(seen, found.answered.values(), strict=True):
        close = bars.closes[-1]
        band = {name: values[-1] for name, values in one["BBANDS"].items()}
        place = (close - band["lowerband"]) / (band["upperband"] - band["lowerband"])
        shown.add_row(
            bars.symbol,
            f"{one['RSI'][-1]:.1f}",
            f"{one['MACD']['macdhist'][-1]:+.3f}",
            f"{one['ATR'][-1] / close:.2%}",
            f"{place:.0%}",
            f"{fmean(scores[bars.symbol]):+.2f}",
        )
    return shown
