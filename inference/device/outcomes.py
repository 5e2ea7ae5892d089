"""Checks of a model's outcomes, before they can become an answer.

Owns the conditions of a valid outcome, per engine: shape and finite numbers. A model's NaN or infinity never reaches a
caller; the item gets an error instead (engine.py), which is counted.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any, Final, TypeAlias

import numpy as np

from models.forecast import Group

Verify: TypeAlias = Callable[[Sequence[Any], Sequence[Any]], Mapping[int, str]]
"""(items, outcomes) to the reason by index of each outcome that is invalid. Exceptions among the outcomes are valid."""

_FIRST: Final = itemgetter(0)
_SECOND: Final = itemgetter(1)
_SHAPE: Final = attrgetter("shape")
_BASE: Final = attrgetter("base")
_HORIZON: Final = attrgetter("horizon")
_LEVELS: Final = attrgetter("levels")


def accept(items: Sequence[Any], outcomes: Sequence[Any]) -> Mapping[int, str]:
    """Every outcome is valid."""
    return {}


def forecasts(items: Sequence[Any], outcomes: Sequence[Any]) -> Mapping[int, str]:
    """Outcomes are models.forecast.Forecast: finite, point [horizon] and quantiles [horizon, levels].

    The outcome of a models.forecast.Group is a tuple with a Forecast for each member.
    """
    return {} if _rows_of_finite_arrays(items, outcomes) else _invalid(items, outcomes, _forecast)


def _rows_of_finite_arrays(items: Sequence[Any], outcomes: Sequence[Any]) -> bool:
    """Whether the forecasts are rows of one finite array each, and of the right shape: a look at the whole batch.

    A look at each forecast by itself would take 5% of a batch's time.
    """
    try:
        points, bands = list(map(_FIRST, outcomes)), list(map(_SECOND, outcomes))
        shapes = {*map(_SHAPE, points)}, {*map(_SHAPE, bands)}
        bases = {*map(id, map(_BASE, points))}, {*map(id, map(_BASE, bands))}
        steps, levels = {*map(_HORIZON, items)}, {*map(len, map(_LEVELS, items))}
    except (TypeError, AttributeError, IndexError):
        return False  # an exception among the outcomes, or no forecast at all
    if not len(steps) == len(levels) == len(bases[0]) == len(bases[1]) == 1 or points[0].base is None:
        return False
    (horizon,), (width,) = steps, levels
    if shapes != ({(horizon,)}, {(horizon, width)}) or bands[0].base is None:
        return False
    return _finite(points[0].base) and _finite(bands[0].base)


def sentiments(items: Sequence[Any], outcomes: Sequence[Any]) -> Mapping[int, str]:
    """Outcomes are finite probabilities [3]."""
    return _invalid(items, outcomes, _sentiment)


def indicators(items: Sequence[Any], outcomes: Sequence[Any]) -> Mapping[int, str]:
    """Outcomes are models.indicators.Answer: a row per output of the program. NaN marks bars of the warm-up."""
    return _invalid(items, outcomes, _indicators)


def _invalid(items: Sequence[Any], outcomes: Sequence[Any], reason_of: Callable[[Any, Any], str]) -> Mapping[int, str]:
    found = {}
    for place, (item, outcome) in enumerate(zip(items, outcomes, strict=True)):
        if not isinstance(outcome, Exception) and (reason := reason_of(item, outcome)):
            found[place] = reason
    return found


def _forecast(item: Any, outcome: Any) -> str:
    if isinstance(item, Group):
        if type(outcome) is not tuple or len(outcome) != len(item.members):
            return "type"
        return next(filter(None, map(_forecast, item.members, outcome)), "")
    try:
        point, quantiles = outcome[:2]
        if point.shape != (item.horizon,) or quantiles.shape != (item.horizon, len(item.levels)):
            return "shape"
    except (TypeError, AttributeError, ValueError):
        return "type"
    return "" if _finite(quantiles) and _finite(point) else "not finite"


def _sentiment(item: Any, outcome: Any) -> str:
    if getattr(outcome, "shape", None) != (3,):
        return "shape"
    return "" if _finite(outcome) else "not finite"


def _indicators(item: Any, outcome: Any) -> str:
    return "" if len(outcome) == len(item.program.outputs) else "shape"


def _finite(values: Any) -> bool:
    # A finite sum of squares proves that every value is finite, at a third of the cost of looking at each. The sum may
    # overflow for finite values above 1e150.
    flat = values.ravel()
    return math.isfinite(np.dot(flat, flat)) or bool(np.isfinite(flat).all())
