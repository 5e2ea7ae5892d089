"""Coverage of the central 80% interval of any forecaster, from its own forecasts at past origins of the series.

Owns the origins and the count. The embedded models count with formulas of their own (coverage.py).
"""

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import numpy as np

from models.forecast import answer_warnings
from models.forecast.series import Covariates, Forecast, Group, Series, members

# A past origin costs a forecast, so origins are few; the answer has the count.
BACKTESTS = 4
LEAST_POINTS = 30
_INTERVAL = (0.1, 0.9)
Item = TypeVar("Item", bound=Series | Group)


def past(item: Series | Group, most: int) -> list[int]:
    """The latest ``most`` origins one horizon apart, as counts of values after the origin.

    At each origin the shortest series of a group has LEAST_POINTS values.
    """
    own = members(item)
    horizon, room = own[0].horizon, min(len(one.values) for one in own) - LEAST_POINTS
    return [order * horizon for order in range(1, most + 1) if order * horizon <= room]


def with_coverage(
    items: Sequence[Item],
    answers: Sequence[Forecast],
    forecast: Callable[[Sequence[Item]], Sequence[Forecast]],
    most: int,
) -> list[Forecast]:
    """``answers`` with the coverage of the central 80% interval, from runs of ``forecast`` at past origins.

    ``answers`` and the results of ``forecast`` have a forecast for each series, those of a group after each other.
    """
    origins = [past(item, most) for item in items]
    earlier = [_before(item, back) for item, ago in zip(items, origins, strict=True) for back in ago]
    bands, given = iter(forecast(earlier) if earlier else ()), iter(answers)
    found = []
    for item, ago in zip(items, origins, strict=True):
        own = members(item)
        kept: list[list[bool]] = [[] for _ in own]
        for back in ago:
            for held, one in zip(kept, own, strict=True):
                low, high = next(bands).quantiles[-1]
                held.append(bool(low <= one.values[len(one.values) - back + one.horizon - 1] <= high))
        for held in kept:
            answer = next(given)
            share = sum(held) / len(held) if held else float("nan")
            warnings = answer_warnings.with_coverage(answer.warnings, share, len(held))
            found.append(answer._replace(coverage=share, coverage_count=len(held), warnings=warnings))
    return found


def _before(item: Item, back: int) -> Item:
    """The item as it was ``back`` values ago."""
    if isinstance(item, Group):
        return cast("Item", Group(tuple(_series_before(one, back) for one in item.members)))
    return cast("Item", _series_before(item, back))


def _series_before(item: Series, back: int) -> Series:
    length = len(item.values) - back
    covariates = item.covariates
    if covariates is not None:
        # What is known ahead today was known ahead then.
        ahead = np.where(np.isnan(covariates.future), np.nan, covariates.past[:, length : length + item.horizon])
        covariates = Covariates(covariates.past[:, :length], ahead)
    return Series(item.values[:length], item.horizon, _INTERVAL, item.symbol, covariates=covariates)
