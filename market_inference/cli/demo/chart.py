"""The fan chart.

Owns the picture: history, median, central intervals and the realised closes, one panel per symbol.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from market_inference.client.arrays import Floats
from market_inference.client.forecast import Forecast

BANDS = (0.9, 0.8, 0.5)
LEVELS = sorted({0.5, *(round((1 + sign * share) / 2, 4) for share in BANDS for sign in (-1, 1))})

# Blue and vermillion of Okabe and Ito's palette: distinct for every kind of colour vision and in grey.
BLUE = "#0072B2"
VERMILLION = "#D55E00"
INK = "#222222"
SHADES = dict(zip(BANDS, ("#d5e6f2", "#a9cde6", "#6faed6"), strict=True))
SHOWN_BARS = 60
SOURCE = "Daily bars from bokeh-sampledata, adjusted for splits and dividends, over trading days."


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """One symbol: the newest `closes` of the history with `days`, the forecast, and the realised closes with days."""

    title: str
    days: Sequence[date]
    closes: Floats
    forecast: Forecast
    later_days: Sequence[date]
    later_closes: Floats


def draw(panels: Sequence[Panel], title: str, path: Path) -> None:
    """Write the chart to `path` as PNG; creates the folder."""
    across = min(3, len(panels) + 1)
    down = -(-(len(panels) + 1) // across)
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 9}):
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
        figure = Figure(figsize=(4.4 * across, 3.2 * down + 0.5), dpi=150, layout=layout)
        figure.suptitle(title, x=0.015, ha="left", fontsize=14, fontweight="bold", color=INK)
        cells = figure.subplots(down, across, squeeze=False).ravel()
        for axes, panel in zip(cells, panels, strict=False):
            _panel(axes, panel)
        for axes in cells[len(panels) :]:
            axes.axis("off")
        _legend(cells[len(panels)], cells[0])
        figure.supxlabel(SOURCE, x=0.985, ha="right", fontsize=8, color="#666666")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", facecolor="white")


def _panel(axes: Axes, panel: Panel) -> None:
    """One panel over trading days without weekends; day 0 is the last day of the forecast's context."""
    last, horizon = panel.closes[-1], panel.forecast.horizon
    ahead = np.arange(horizon + 1)
    for share in BANDS:
        # The fan opens at the last close.
        lower, upper = (np.concatenate(([last], path)) for path in panel.forecast.interval(share))
        axes.fill_between(ahead, lower, upper, color=SHADES[share], linewidth=0, label=f"{share:.0%} interval")
    shown = panel.closes[-SHOWN_BARS:]
    axes.plot(np.arange(1 - len(shown), 1), shown, color=INK, linewidth=1.3, label="close")
    axes.plot(ahead, [last, *panel.forecast.point], color=BLUE, linewidth=1.6, label="median forecast")
    axes.plot(
        ahead[1:],
        panel.later_closes,
        color=VERMILLION,
        linewidth=0.9,
        marker="o",
        markersize=4,
        markeredgecolor="white",
        markeredgewidth=0.6,
        label="close realised afterwards",
    )
    axes.axvline(0, color="#888888", linewidth=0.8, linestyle=(0, (3, 3)), label="day of the forecast")
    _dress(axes, panel)
    _date_axis(axes, panel)


def _dress(axes: Axes, panel: Panel) -> None:
    axes.set_title(panel.title, loc="left", fontsize=10.5, fontweight="bold", color=INK)
    axes.set_title(_coverage(panel.forecast), loc="right", fontsize=8.5, color="#666666")
    axes.set_ylabel("adjusted close, USD")
    axes.grid(axis="y", color="#e3e3e3", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.02)


def _date_axis(axes: Axes, panel: Panel) -> None:
    """A tick at the first trading day of every month in view."""
    days = [*panel.days[-SHOWN_BARS:], *panel.later_days]
    first = len(panel.later_days) - len(days) + 1
    starts = [at for at in range(1, len(days)) if days[at].month != days[at - 1].month]
    axes.set_xticks([first + at for at in starts], [f"{days[at]:%b %Y}" for at in starts])


def _coverage(forecast: Forecast) -> str:
    measured = forecast.coverage
    return f"80% held {measured.measured:.0%} of {measured.origins} backtests" if measured.origins else ""


def _legend(cell: Axes, source: Axes) -> None:
    handles, labels = source.get_legend_handles_labels()
    cell.legend(handles, labels, loc="center", frameon=False, fontsize=11, labelspacing=0.9, handlelength=2.2)
