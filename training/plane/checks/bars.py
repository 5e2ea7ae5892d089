"""Checks of bars: columns `time`, `open`, `high`, `low`, `close`, and where there are `symbol`, `volume` and features.

Owns the rules for rows and series. Every finding of one row is made against the row before of
the same symbol, so that the file is read once.
"""

import math
import sys
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from training.plane.checks import rows
from training.plane.checks.report import Report
from training.recipes.table import number

PRICES = ("open", "high", "low", "close")
FEWEST_BARS = 30
MOST_SYMBOLS = 20_000
MOST_SYMBOL_CHARACTERS = 64  # as in requests
MOST_FEATURES = 50
GAP_TIMES_USUAL = 6.0
CONSTANT_BARS = 20
LOOK_AHEAD = 0.5
_SPLITS = (1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 20.0)
_NEAR_SPLIT = 0.02
_LARGE_MOVE = 0.35
_KEPT_PAIRS = 50_000


@dataclass
class _Series:
    """State of one symbol's series: the newest bar and running figures."""

    time: str = ""
    close: float = math.nan
    volume: float = math.nan
    features: list[float] = field(default_factory=list)
    bars: int = 0
    still: int = 0
    spacing: float = math.nan


def check(chunks: Iterable[bytes], report: Report, alive: Callable[[], None]) -> None:
    """Read the file once; `alive` is called now and then."""
    header, found = rows.table(chunks, report, rows.MOST_BARS)
    if missing := [name for name in ("time", *PRICES) if name not in header]:
        report.error("columns", 1, f"no column {missing[0]!r}; there are: {', '.join(header)[:200]}")
        return
    bars = _Bars(header, report)
    for row, fields in found:
        bars.add(row, fields)
        if row % 20_000 == 0:
            alive()
    bars.finish()


class _Bars:
    def __init__(self, header: list[str], report: Report) -> None:
        known = {"time", "symbol", "volume", *PRICES}
        self._at = {name: place for place, name in enumerate(header)}
        self._features = [name for name in header if name not in known][:MOST_FEATURES]
        self._report = report
        self._series: dict[str, _Series] = {}
        self._pairs = {name: array("d") for name in self._features}

    def add(self, row: int, fields: list[str]) -> None:
        symbol = fields[self._at["symbol"]].strip() if "symbol" in self._at else ""
        if len(symbol) > MOST_SYMBOL_CHARACTERS:
            self._report.error("symbol", row, f"at most {MOST_SYMBOL_CHARACTERS} characters, got {len(symbol)}")
            return
        time = rows.utc(fields[self._at["time"]].strip())
        if time is None:
            self._report.error("time", row, "time must be ISO 8601, such as 2026-03-31T20:00:00Z")
            return
        prices = [number(fields[self._at[name]]) for name in PRICES]
        volume = number(fields[self._at["volume"]]) if "volume" in self._at else math.nan
        if not self._good(row, prices, volume):
            return
        series = self._series.get(symbol)
        if series is None:
            if len(self._series) >= MOST_SYMBOLS:
                self._report.error("symbols", row, f"at most {MOST_SYMBOLS} symbols")
                return
            series = self._series[symbol] = _Series()
        features = [number(fields[self._at[name]]) for name in self._features]
        if series.bars == 0 or self._follows(row, series, time, prices[3], volume):
            self._report.saw_time(time)
            series.time, series.close, series.volume, series.features = time, prices[3], volume, features
            series.bars += 1

    def _good(self, row: int, prices: list[float], volume: float) -> bool:
        """Whether one bar by itself is possible."""
        report = self._report
        for name, price in zip(PRICES, prices, strict=True):
            if not math.isfinite(price) or price <= 0:
                report.error("price", row, f"{name} must be a finite number above 0")
                return False
        opened, high, low, close = prices
        if not low <= min(opened, close) or not high >= max(opened, close):
            report.error("ohlc", row, "low <= open, close <= high does not hold")
            return False
        if "volume" in self._at and (not math.isfinite(volume) or volume < 0):
            report.error("volume", row, "volume must be a finite number, 0 or more")
            return False
        return True

    def _follows(self, row: int, series: _Series, time: str, close: float, volume: float) -> bool:
        """Whether the bar is newer than the one before; oddities of the step are reported."""
        report = self._report
        if time == series.time:
            report.error("duplicate_time", row, f"a second bar at {time[:19]}")
            return False
        if time < series.time:
            report.error("order", row, f"the bar at {time[:19]} comes after the bar at {series.time[:19]}")
            return False
        self._spacing(row, series, time)
        move = math.log(close) - math.log(series.close)  # the quotient may be 0 or infinite
        if abs(move) > _LARGE_MOVE and self._looks_split(move, series.volume, volume):
            report.warn("split", row, f"close goes from {series.close:g} to {close:g}: a split that is not adjusted?")
        series.still = series.still + 1 if close == series.close else 0
        if series.still == CONSTANT_BARS:
            report.warn("constant", row, f"{CONSTANT_BARS} bars with the same close")
        for name, value in zip(self._features, series.features, strict=False):
            if math.isfinite(value) and len(self._pairs[name]) < 2 * _KEPT_PAIRS:
                self._pairs[name].extend((value, move))
        return True

    def _spacing(self, row: int, series: _Series, time: str) -> None:
        """Report a gap many times the smoothed spacing so far."""
        seconds = (datetime.fromisoformat(time) - datetime.fromisoformat(series.time)).total_seconds()
        if series.bars > 5 and seconds > GAP_TIMES_USUAL * series.spacing:
            self._report.warn("gap", row, f"no bars between {series.time[:19]} and {time[:19]}")
            return
        series.spacing = seconds if math.isnan(series.spacing) else 0.9 * series.spacing + 0.1 * seconds

    def _looks_split(self, move: float, before: float, after: float) -> bool:
        """A move by one of the usual ratios that the traded volume does not explain."""
        usual = any(abs(abs(move) - math.log(ratio)) < _NEAR_SPLIT for ratio in _SPLITS)
        known = math.isfinite(before) and math.isfinite(after) and before > 0
        return usual and not (known and after > 5 * before)

    def finish(self) -> None:
        report = self._report
        report.facts["symbols"] = len(self._series)
        if report.errors:
            return
        if not self._series:
            report.error("rows", 0, f"at least {FEWEST_BARS} bars, got 0")
        for symbol, series in self._series.items():
            if series.bars < FEWEST_BARS:
                name = f" of {symbol[:40]}" if symbol else ""
                report.error("rows", 0, f"at least {FEWEST_BARS} bars{name}, got {series.bars}")
        self._find_look_ahead()
        if len(self._series) > 1:
            self._find_survivors()

    def _find_look_ahead(self) -> None:
        """A feature that goes with the next return as no honest feature does."""
        for name, pairs in self._pairs.items():
            values = np.array(pairs).reshape(-1, 2)
            if len(values) < 100:
                continue
            values /= np.maximum(np.abs(values).max(0), sys.float_info.min)  # squares of 1e308 are infinite
            if not values.std(0).all():
                continue
            with np.errstate(divide="ignore", invalid="ignore"):  # the variance may round to 0; no number is no finding
                correlation = float(np.corrcoef(values.T)[0, 1])
            if abs(correlation) > LOOK_AHEAD:
                why = f"column {name[:40]!r} has a correlation of {correlation:.2f} with the next bar's return"
                self._report.warn("look_ahead", 0, why)

    def _find_survivors(self) -> None:
        """All symbols living to the last day hints at a universe that was chosen afterwards."""
        last = max(series.time for series in self._series.values())[:10]
        if len(self._series) >= 20 and all(series.time[:10] == last for series in self._series.values()):
            self._report.warn("survivorship", 0, "no symbol ends before the last day: were the delisted left out?")
