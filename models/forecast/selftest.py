"""The self-test of a model on a small input, against stored answers.

Owns the input, the stored answers of the embedded models and the comparison.
"""

import numpy as np

from models.forecast.series import Forecast, Series
from models.model import Model

LEVELS = (0.1, 0.5, 0.9)
HORIZON = 12


class SelfTestError(Exception):
    """A model's answer to the stored input differs from the stored answer."""


def seasonal() -> Series:
    """A rising, seasonal, positive series of 120 points: the gate opens."""
    time = np.arange(120.0)
    return Series(50 + 0.1 * time + 8 * np.sin(2 * np.pi * time / 12) + 2 * np.sin(time**2), HORIZON, LEVELS)


def check(model: Model[Series, Forecast], expected: tuple[float, ...], tolerance: float) -> None:
    """Run the stored input through ``model``; raises SelfTestError unless the last quantiles are ``expected``."""
    last = model.run([seasonal()])[0].quantiles[-1]
    if not np.allclose(last, expected, rtol=tolerance, atol=0):
        raise SelfTestError(f"{model.name}: the self-test expects {list(expected)}, found {last.tolist()}")
