"""A forecast: the median path, its quantiles, and the measured coverage of its interval."""

from collections.abc import Callable
from dataclasses import dataclass, fields, make_dataclass
from typing import Any

import numpy as np

from market_inference.client import arrays, warning
from market_inference.client.arrays import Floats
from market_inference.client.inputs import arguments
from market_inference.client.inputs.items import Source
from market_inference.client.warning import AnswerWarning
from market_inference.errors import ArgumentError


@dataclass(frozen=True, slots=True)
class Coverage:
    """The coverage of the central interval in backtests inside the series itself.

    `nominal`: the promised share, 0.8. `measured`: the observed share at the last step alone, `horizon` steps after
    each origin, NaN without origins. `origins`: backtests behind `measured`; few make thin evidence.

    With a period: `by_phase` [period] is the observed share one step ahead at each phase, NaN without origins, and
    `phase_origins` [period] the backtests behind it. Phase 0 is the newest value's; the value h steps ahead has the
    phase h modulo the period. With times `phase_ahead` [horizon] has the phases of the steps ahead.
    """

    nominal: float
    measured: float
    origins: int
    by_phase: tuple[float, ...] = ()
    phase_origins: tuple[int, ...] = ()
    phase_ahead: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Forecast:
    """The forecast of one series, in the units of the series.

    `point` [horizon] is the median path; `quantiles` [horizon, levels], and `levels` [levels] ascending. `gate`: the
    weight of the autoregressive part, 0 is a random walk with a volatility forecast. `logs`: the series was modelled
    in logarithms. `context`: values of the series that the model used. `warnings`: doubts of the service about the
    series or the answer, none for clean data. `source`: the labels of the series' rows.
    """

    symbol: str
    point: Floats
    quantiles: Floats
    levels: Floats
    coverage: Coverage
    gate: float
    logs: bool
    context: int
    model: str
    model_version: str
    request_id: str
    warnings: tuple[AnswerWarning, ...] = ()
    source: Source = Source()  # noqa: RUF009  # frozen

    @property
    def horizon(self) -> int:
        """Steps ahead."""
        return len(self.point)

    @property
    def index(self) -> Any:
        """The labels of the series' own rows, oldest first; None where the data had none."""
        return self.source.index

    @property
    def notes(self) -> tuple[str, ...]:
        """Changes that the client made to the data, such as the reversal of descending dates."""
        return self.source.notes

    def to_frame(self, *, calendar: str = "", library: str = "") -> Any:
        """A frame with a row for each step: `point`, and `q0.1` and so on for the levels.

        The rows carry the dates that follow the series' own: by the index's frequency, or by equal steps, months or
        working days that the rows show without exception; else `step`. Holidays need `calendar`, an exchange's name in
        exchange_calendars such as "XNYS". `library`: "pandas" or "polars", by default the input's.
        """
        from market_inference.client.frames import tables

        return tables.forecast(self, calendar, library)

    def plot(self, history: Any = None, *, calendar: str = "", ax: Any = None) -> Any:
        """Draw the fan chart with matplotlib, after the newest values of `history`, the series; returns the axes."""
        from market_inference.client.frames import plot

        return plot.fan(self, history, calendar, ax)

    def _repr_html_(self) -> str:
        from market_inference.client.frames import html

        shown = min(self.horizon, html.MOST_ROWS)
        head = ("step", "point", *(f"q{float(level)!r}" for level in self.levels))
        rows = [(at + 1, float(self.point[at]), *map(float, self.quantiles[at])) for at in range(shown)]
        return html.table(repr(self), head, rows, left_out=self.horizon - shown)

    def quantile(self, level: float) -> Floats:
        """The path [horizon] of one level of `levels`. Raises ArgumentError for another level."""
        level = arguments.number(level, "level", "a level between 0 and 1")
        at = np.flatnonzero(np.isclose(self.levels, level, rtol=0, atol=1e-9))
        if not at.size:
            there = ", ".join(f"{known:g}" for known in self.levels)
            raise ArgumentError(
                "level",
                f"no quantile {level:g} in this forecast (it has {there}); ask for it with quantiles=[..., {level:g}]",
            )
        return np.asarray(self.quantiles[:, at[0]], dtype=np.float64)

    def interval(self, share: float) -> tuple[Floats, Floats]:
        """Lower and upper path [horizon] of the central interval that holds `share`, such as 0.8.

        Raises ArgumentError when `levels` has not both levels of the interval.
        """
        share = arguments.number(share, "share", "a share between 0 and 1")
        if not 0 < share < 1:
            percent = f"; for {share:g}% give {share / 100:g}" if 1 < share < 100 else ""
            raise ArgumentError("share", f"must lie strictly between 0 and 1, got {share:g}{percent}")
        lower, upper = round((1 - share) / 2, 12), round((1 + share) / 2, 12)
        if not all(np.isclose(self.levels, level, rtol=0, atol=1e-9).any() for level in (lower, upper)):
            there = ", ".join(f"{known:g}" for known in self.levels)
            raise ArgumentError(
                "share",
                f"no quantile {lower:g} and {upper:g} in this forecast (it has {there}); ask for the interval with "
                f"predict(..., interval={share:g})",
            )
        return self.quantile(lower), self.quantile(upper)

    def __repr__(self) -> str:
        name = f"{self.symbol}: " if self.symbol else ""
        levels = f"levels {self.levels[0]:g} to {self.levels[-1]:g}"
        model = "; ".join((f"model {self.model}", *(one.code for one in self.warnings)))
        return f"Forecast({name}{self.horizon} steps, the last {self.brief()[:-1]} at {levels}), {model})"

    def brief(self) -> str:
        """The last step, for the repr of many answers."""
        end, lower, upper = self.point[-1], self.quantiles[-1, 0], self.quantiles[-1, -1]
        return f"{end:.6g} ({lower:.6g} to {upper:.6g})"


def _maker(kind: Any) -> Callable[..., Any]:
    """The constructor of a frozen dataclass with slots, at a third of its cost: frozen once the fields are set."""
    thawed = make_dataclass(kind.__name__, [one.name for one in fields(kind)], slots=True, eq=False)

    def make(*values: Any, **named: Any) -> Any:
        made: Any = thawed(*values, **named)
        made.__class__ = kind
        return made

    return make


_coverage: Callable[..., Coverage] = _maker(Coverage)
_forecast: Callable[..., Forecast] = _maker(Forecast)


def read(found: Any, levels: Floats, source: Source, model: Any, request_id: str) -> Forecast:
    """A Forecast from its message or the message's twin, which checks.forecast() has passed.

    `model` is a message with `model` and `model_version`.
    """
    point, coverage = arrays.read(found.point), found.coverage
    quantiles = arrays.read(found.quantiles)
    return _forecast(
        symbol=source.symbol,
        point=point,
        quantiles=quantiles.reshape(len(point), len(levels)),
        levels=levels,
        coverage=_coverage(
            coverage.nominal,
            coverage.measured,
            coverage.origins,
            tuple(coverage.phase_measured),
            tuple(coverage.phase_origins),
            tuple(coverage.phase_ahead),
        ),
        gate=found.gate,
        logs=found.logs,
        context=found.context,
        model=model.model,
        model_version=model.model_version,
        request_id=request_id,
        warnings=warning.read(found.warnings) if found.warnings else (),
        source=source,
    )
