"""A forecast as a fan chart.

Owns the drawing with matplotlib, an optional dependency.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from market_inference.client.frames import dates

if TYPE_CHECKING:
    from market_inference.client.forecast import Forecast

_SHOWN_HISTORY = 120


def fan(found: "Forecast", history: Any, calendar: str, axes: Any) -> Any:
    """Draw the median and one band for each pair of levels; returns the axes.

    `history`: the series itself, of which the newest values are drawn before the forecast, or None.
    """
    if axes is None:
        try:
            axes = import_module("matplotlib.pyplot").subplots()[1]
        except ModuleNotFoundError as error:
            raise ImportError("plot() needs matplotlib: pip install matplotlib") from error
    labels = dates.following(found.index, found.horizon, calendar)
    past = np.empty(0) if history is None else np.asarray(history, dtype=np.float64)[-_SHOWN_HISTORY:]
    if labels is None:
        before, after = np.arange(1 - len(past), 1), np.arange(1, found.horizon + 1)
        axes.set_xlabel("step")
    else:
        before, after = found.index[len(found.index) - len(past) :], labels
    if len(past):
        axes.plot(before, past, color="0.3", linewidth=1)
    pairs = [
        (low, high)
        for low, high in zip(range(len(found.levels)), reversed(range(len(found.levels))), strict=True)
        if low < high and np.isclose(found.levels[low] + found.levels[high], 1.0)
    ]
    for low, high in pairs:
        share = found.levels[high] - found.levels[low]
        axes.fill_between(
            after, found.quantiles[:, low], found.quantiles[:, high], color="C0", alpha=0.18, label=f"{share:.0%}"
        )
    axes.plot(after, found.point, color="C0", label="median")
    axes.set_title(" ".join(part for part in (found.symbol, found.model) if part))
    axes.legend(loc="upper left", frameon=False)
    return axes
