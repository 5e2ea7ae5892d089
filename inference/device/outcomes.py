"""Checks of a model's outcomes, before they can become an answer.

Owns the conditions of a valid outcome, per engine: shape and finite numbers. A model's NaN or infinity never reaches a
caller; the item gets an error instead (engine.py), which is counted.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

Verify: TypeAlias = Callable[[Sequence[Any], Sequence[Any]], Mapping[int, str]]
"""(items, outcomes) to the reason by index of each outcome that is invalid. Exceptions among the outcomes are valid."""


def accept(items: Sequence[Any], outcomes: Sequence[Any]) -> Mapping[int, str]:
    """Every outcome is valid."""
    return {}


def forecasts(items: Sequence[Any], outcomes: Sequence[Any]) -> Mapping[int, str]:
    """Outcomes are models.forecast.Forecast: finite, point [horizon] and quantiles [horizon, levels]."""
    # Few numpy calls per batch: a look at each item by itself would take 5% of a batch's time.
    try:
        arrays = [array for outcome in outcomes for array in outcome[:2]]
        shapes = [array.shape for array in arrays]
        wanted = [shape for item in items for shape in ((item.horizon,), (item.horizon, len(item.levels)))]
        if shapes == wanted and _finite(np.concatenate(arrays, axis=None)):
            return {}
    except (TypeError, AttributeError):
        pass  # an exception among the outcomes, or no forecast at all
    return _invalid(items, outcomes, _forecast)


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
