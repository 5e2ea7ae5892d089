"""The error and calibration of `auto` on real series, relative to a Gaussian random walk, with limits.

Beside every figure stands that of version 1 (`auto_v1`).

Rolling origins, context 256. A loss is the sum of pinball losses at levels 0.1 to 0.9 over all origins and steps,
divided by the loss of the random walk; below 1 is better. `python -m benchmarks.evaluate_forecast` prints the table and
exits with 1 if a figure violates a limit. Prices are adjusted closes, because a split inside the context would distort
sigma.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import bokeh_sampledata.stocks as stocks
import numpy as np
from scipy.stats import norm
from statsmodels.datasets import co2, elnino
from threadpoolctl import threadpool_limits

from models.forecast import Forecast, Series, load
from models.forecast.path import LARGEST_LOG_STEP
from models.forecast.series import Array
from models.model import Model

CONTEXT = 256
# The pinball levels, then the ends of the 80% and 90% intervals (0.1 and 0.9 serve twice).
LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
SCORED = np.array(LEVELS[1:-1])
BATCH = 32
HOURS = 24
RANDOM_WALKS = 4000


@dataclass(frozen=True)
class Score:
    """The result for a series: `loss` and `scaled` (median absolute error) as ratios, coverages of two intervals."""

    loss: float
    scaled: float
    covered80: float
    covered90: float
    points: int


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure and the allowed range."""

    what: str
    figure: float
    low: float
    high: float

    @property
    def kept(self) -> bool:
        return self.low <= self.figure <= self.high


def quotes() -> Any:
    """GOOG by day and EURUSD by hour, as data frames."""
    import backtesting.test  # takes a second, with bokeh

    return backtesting.test


def closes() -> dict[str, Array]:
    """Adjusted closes of daily stocks, and hourly EURUSD."""
    found = {"GOOG": quotes().GOOG["Close"], "EURUSD": quotes().EURUSD["Close"]}
    found |= {name: getattr(stocks, name)["adj_close"] for name in ("AAPL", "IBM", "MSFT")}
    return {name: np.ascontiguousarray(column, dtype=np.float64) for name, column in found.items()}


def others() -> dict[str, Array]:
    """Series with structure: volumes, weekly CO2 with interpolated gaps, monthly sea surface temperatures."""
    weekly = co2.load_pandas().data["co2"].interpolate()
    monthly = elnino.load_pandas().data.drop(columns="YEAR").to_numpy().ravel()
    return {
        "GOOG volume": np.asarray(quotes().GOOG["Volume"], dtype=np.float64),
        "EURUSD volume": np.asarray(quotes().EURUSD["Volume"], dtype=np.float64),
        "co2": np.asarray(weekly, dtype=np.float64),
        "elnino": np.asarray(monthly, dtype=np.float64),
    }


def windows(values: Array, horizon: int, every: int) -> Iterator[tuple[Array, Array]]:
    """Contexts [CONTEXT] and the following values [horizon], one pair per origin."""
    for origin in range(CONTEXT, len(values) - horizon + 1, every):
        yield np.ascontiguousarray(values[origin - CONTEXT : origin]), values[origin : origin + horizon]


def random_walk(context: Array, horizon: int) -> Array:
    """The Gaussian random walk's quantiles at SCORED [horizon, 9]: no drift, one sigma over the context.

    The walk uses logarithms if and only if `auto` does, the better choice for volumes that fall to almost zero.
    """
    logs = np.abs(np.diff(np.log(context))).max() < LARGEST_LOG_STEP
    path: Array = np.log(context) if logs else context
    sigma = np.sqrt(np.mean(np.diff(path) ** 2))
    band: Array = path[-1] + sigma * np.sqrt(np.arange(1.0, horizon + 1))[:, None] * norm.ppf(SCORED)
    return np.exp(band) if logs else band


def pinball(actual: Array, quantiles: Array) -> float:
    """The sum of pinball losses of `quantiles` [n, horizon, 9] at SCORED."""
    gap = actual[:, :, None] - quantiles
    return float(np.maximum(SCORED * gap, (SCORED - 1) * gap).sum())


def score(
    model: Model[Series, Forecast], values: Array, horizon: int, every: int, period: int = 0, times: Any = None
) -> Score:
    """Run `model` over all origins of one series; `period` of the volatility or `times` of the values, where known."""
    pairs = list(windows(values, horizon, every))
    instants = [None] * len(pairs) if times is None else [context for context, _ in windows(times, horizon, every)]
    items = [
        Series(context, horizon, LEVELS, period=period, times=at)
        for (context, _), at in zip(pairs, instants, strict=True)
    ]
    answers = run(model, items)
    quantiles = np.stack([answer.quantiles for answer in answers])
    actual = np.stack([after for _, after in pairs])
    walks = np.stack([random_walk(context, horizon) for context, _ in pairs])
    loss = pinball(actual, quantiles[:, :, 1:-1]) / pinball(actual, walks)
    last = np.array([context[-1] for context, _ in pairs])
    step = np.array([np.abs(np.diff(context)).mean() for context, _ in pairs])[:, None]
    error = np.median(np.abs(actual - np.stack([answer.point for answer in answers])) / step)
    naive = np.median(np.abs(actual - last[:, None]) / step)
    covered80, covered90 = (inside(actual, quantiles, low) for low in (1, 0))
    return Score(loss, float(error / naive), covered80, covered90, actual.size)


def run(model: Model[Series, Forecast], items: Sequence[Series]) -> list[Forecast]:
    """All items, in batches."""
    return [answer for start in range(0, len(items), BATCH) for answer in model.run(items[start : start + BATCH])]


def inside(actual: Array, quantiles: Array, low: int) -> float:
    """The share of `actual` between the level at index `low` and the symmetric upper level."""
    return float(np.mean((actual >= quantiles[:, :, low]) & (actual <= quantiles[:, :, -1 - low])))


def gate_openings(model: Model[Series, Forecast]) -> float:
    """The share of pure random walks with t4 steps, T = 256, for which the gate is not fully closed."""
    rng = np.random.default_rng(20260101)
    steps = 0.01 * rng.standard_t(4, (RANDOM_WALKS, CONTEXT))
    items = [Series(np.exp(path), 1, (0.5,)) for path in steps.cumsum(1)]
    return float(np.mean([answer.gate > 0 for answer in run(model, items)]))


def price_rows(model: Model[Series, Forecast]) -> list[Row]:
    """The limits on closes."""
    monthly = {name: score(model, values, 24, 24) for name, values in closes().items()}
    weekly = {name: score(model, values, 5, 12) for name, values in closes().items()}
    points = [found.points for found in monthly.values()]
    rows = [Row(f"{name} close, H=24: loss", found.loss, 0, 1.02) for name, found in monthly.items()]
    rows.append(Row("mean of closes, H=24: loss", float(np.mean([s.loss for s in monthly.values()])), 0, 0.994))
    rows += [Row(f"{name} close, H=5: loss", found.loss, 0, 1.01) for name, found in weekly.items()]
    rows.append(Row("mean of closes, H=5: loss", float(np.mean([s.loss for s in weekly.values()])), 0, 0.982))
    rows += [Row(f"{name} close, H=24: coverage of 80%", s.covered80, 0.70, 0.88) for name, s in monthly.items()]
    pooled80 = np.average([s.covered80 for s in monthly.values()], weights=points)
    pooled90 = np.average([s.covered90 for s in monthly.values()], weights=points)
    rows.append(Row("pooled closes, H=24: coverage of 80%", float(pooled80), 0.76, 0.84))
    rows.append(Row("pooled closes, H=24: coverage of 90%", float(pooled90), 0.86, 0.94))
    rows += [Row(f"{name} close, H=24: median error", s.scaled, 0, 1.005) for name, s in monthly.items()]
    return rows


def hourly_rows(model: Model[Series, Forecast]) -> list[Row]:
    """The limits on hourly EURUSD with the hour of the day as phase, and on the coverage by hour one step ahead."""
    values = closes()["EURUSD"]
    found = score(model, values, 5, 12, HOURS)
    pairs = list(windows(values, 1, 1))
    answers = run(model, [Series(context, 1, LEVELS, period=HOURS) for context, _ in pairs])
    low, high = (np.array([answer.quantiles[0, at] for answer in answers]) for at in (1, -2))
    after = np.array([ahead[0] for _, ahead in pairs])
    inside_band = (low <= after) & (after <= high)
    hours = [stamp.hour for stamp in quotes().EURUSD.index[CONTEXT : CONTEXT + len(pairs)]]
    by_hour = [float(inside_band[np.array(hours) == hour].mean()) for hour in range(HOURS)]
    # A fifth of the bars is missing: only the times tell the hour.
    kept = np.sort(np.random.default_rng(0).choice(len(values), 4 * len(values) // 5, replace=False))
    times = quotes().EURUSD.index.as_unit("ns").asi8
    by_time = score(model, values[kept], 5, 12, times=times[kept])
    return [
        Row("EURUSD close with its period, H=5: loss", found.loss, 0, 0.970),
        Row("EURUSD close with gaps by its times, H=5: loss", by_time.loss, 0, 0.973),
        Row("EURUSD with its period, H=1: least coverage", min(by_hour), 0.70, 0.90),
        Row("EURUSD with its period, H=1: largest coverage", max(by_hour), 0.70, 0.90),
    ]


def structure_rows(model: Model[Series, Forecast]) -> list[Row]:
    """The limits on series with structure, and the gate's limit on series without structure."""
    bars = {"GOOG volume": 0.585, "EURUSD volume": 0.478, "co2": 0.40, "elnino": 0.42}
    data = others()
    rows = [Row(f"{name}, H=24: loss", score(model, data[name], 24, 24).loss, 0, bar) for name, bar in bars.items()]
    return [*rows, Row("gate opens on t4 random walks, T=256", gate_openings(model), 0, 0.01)]


def main() -> int:
    """Print the table; returns 1 if a figure violates a limit."""
    threadpool_limits(1, user_api="blas")
    model = load("auto")
    rows = price_rows(model) + structure_rows(model) + hourly_rows(model)
    before = load("auto_v1")
    former = price_rows(before) + structure_rows(before) + hourly_rows(before)
    print(f"{'auto against the Gaussian random walk, context 256':52}{'figure':>8}{'v1':>9}  bar")
    for row, old in zip(rows, former, strict=True):
        bar = f"<= {row.high:g}" if row.low == 0 else f"in [{row.low:g}, {row.high:g}]"
        print(f"{row.what:52}{row.figure:8.4f} {old.figure:8.4f}  {bar:16}{'pass' if row.kept else 'FAIL'}")
    missed = sum(not row.kept for row in rows)
    print(f"{len(rows) - missed} of {len(rows)} bars kept")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
