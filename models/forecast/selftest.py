"""A model's check of itself on a small real input, against answers stored when it was known to be right.

Owns the input, the stored answers of the embedded models and the comparison.
"""

import numpy as np

from models.forecast.series import Array, Forecast, Series
from models.model import Model

LEVELS = (0.1, 0.5, 0.9)
HORIZON = 12
# Rounding differs between devices and libraries; a wrong formula moves an answer far more.
TOLERANCE = 1e-6


class SelfTestError(Exception):
    """A model's answer to the stored input differs from the stored answer."""


def seasonal() -> Series:
    """A rising, seasonal, positive series of 120 points: it opens the gate."""
    time = np.arange(120.0)
    return Series(50 + 0.1 * time + 8 * np.sin(2 * np.pi * time / 12) + 2 * np.sin(time**2), HORIZON, LEVELS)


def compare(name: str, found: Forecast, expected: Array) -> None:
    """Hold the last step's quantiles against ``expected``, float64 [levels]; raises SelfTestError."""
    last = found.quantiles[-1]
    if not np.allclose(last, expected, rtol=TOLERANCE, atol=0):
        raise SelfTestError(f"{name}: the self-test expects {expected.tolist()}, found {last.tolist()}")


def check(model: Model[Series, Forecast], expected: tuple[float, ...]) -> None:
    """Run the stored input through ``model``; raises SelfTestError when the answer is not ``expected``."""
    compare(model.name, model.run([seasonal()])[0], np.array(expected))
