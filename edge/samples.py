"""Samples of bars for the page, made here: no market data is shipped.

Owns three simulated instruments, the same at every start: prices with clusters of volatility, a series with a weekly
rhythm, and a spread with reversion to a mean. Each shows another side of the forecaster.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_BARS: Final = 750
_FIRST_DAY: Final = "2023-01-02"


@dataclass(frozen=True, slots=True)
class Sample:
    """`closes`: makes the closes [n]."""

    name: str
    title: str
    closes: Callable[[np.random.Generator], Floats]

    def csv(self) -> str:
        """Date, Open, High, Low, Close, Volume."""
        return _csv(self)


def _prices(dice: np.random.Generator) -> Floats:
    """A random walk with GARCH(1,1) variance, and a crash with its echo."""
    shocks, returns, variance = dice.standard_t(6, _BARS) / np.sqrt(1.5), np.zeros(_BARS), 1e-4
    for at in range(1, _BARS):
        variance = 4e-6 + 0.09 * returns[at - 1] ** 2 + 0.89 * variance
        returns[at] = 0.0003 + np.sqrt(variance) * shocks[at]
    returns[520] = -0.075
    return np.asarray(180 * np.exp(np.cumsum(returns)))


def _seasonal(dice: np.random.Generator) -> Floats:
    """A five-day rhythm, as turnover or load have."""
    day = np.arange(_BARS)
    rhythm = np.array([0.0, 6.0, 9.0, 5.0, -8.0])[day % 5]
    return np.asarray(120 + rhythm + dice.normal(0, 3.0, _BARS))


def _spread(dice: np.random.Generator) -> Floats:
    """A price ratio that returns to 50 within weeks (AR(1))."""
    values = np.full(_BARS, 50.0)
    for at in range(1, _BARS):
        values[at] = 50 + 0.94 * (values[at - 1] - 50) + dice.normal(0, 0.45)
    return values


SAMPLES: Final = (
    Sample("stock", "Simulated stock (volatility comes in waves)", _prices),
    Sample("season", "Simulated turnover (a weekly rhythm)", _seasonal),
    Sample("spread", "Simulated spread (returns to its mean)", _spread),
)


@cache
def _csv(sample: Sample) -> str:
    dice = np.random.default_rng([ord(letter) for letter in sample.name])
    close = sample.closes(dice)
    opened = np.r_[close[0], close[:-1]] * (1 + dice.normal(0, 0.001, _BARS))
    reach = np.abs(dice.normal(0, 0.006, (2, _BARS)))
    high = np.maximum(opened, close) * (1 + reach[0])
    low = np.minimum(opened, close) * (1 - reach[1])
    volume = np.round(2e6 * np.exp(dice.normal(0, 0.35, _BARS)))
    days = np.busday_offset(np.datetime64(_FIRST_DAY), np.arange(_BARS), roll="forward")
    rows = zip(days, opened, high, low, close, volume, strict=True)
    lines = [f"{day},{o:.2f},{h:.2f},{lo:.2f},{c:.2f},{v:.0f}" for day, o, h, lo, c, v in rows]
    return "Date,Open,High,Low,Close,Volume\n" + "\n".join(lines) + "\n"
