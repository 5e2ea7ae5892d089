"""Checks of a model's outcomes, before they can become an answer.

Owns the conditions of a valid outcome, per engine: types, layout and values. calls/answers.py writes the memory of the
arrays as it is. An item with another outcome gets an error instead (engine.py), which is counted.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

import numpy as np

from market_inference.contract.errors import ServiceError
from models.forecast import Forecast, Group, Series
from models.forecast.series import Phases
from models.indicators import SpoiltSumsError, Task
from models.warning import AnswerWarning, WarningCode

Verify: TypeAlias = Callable[[Sequence[Any], Sequence[Any]], Mapping[int, str]]
"""(items, outcomes) to the mistake by index of each outcome that is invalid. Errors for callers are valid outcomes."""

_FLOAT64: Final = np.dtype(np.float64)
_NUMBER: Final = (float, int, np.floating, np.integer)
_COUNT: Final = (int, np.integer)
_FLAG: Final = (bool, np.bool_)
_MOST_ORIGINS: Final = (1 << 31) - 1
# From so many forecasts on, the look at the whole batch is faster.
_MANY: Final = 2
# Rounding of quantiles, as a share of the largest number of the step, and of the sum of probabilities.
_ROUNDING: Final = 1e-9
_SUM_ROUNDING: Final = 1e-3
_MISTAKES: Final = (TypeError, ValueError, AttributeError)
"""What the look at a field of another type raises."""


def accept(items: Sequence[Any], outcomes: Sequence[Any]) -> Mapping[int, str]:
    """Every outcome is valid."""
    return {}


def forecasts(items: Sequence[Any], outcomes: Sequence[Any]) -> Mapping[int, str]:
    """Outcomes are models.forecast.Forecast, as documented there, for the horizon and the levels of the item.

    The outcome of a models.forecast.Group is a tuple with a Forecast for each member.
    """
    with suppress(*_MISTAKES):
        if len(items) >= _MANY and _are_sound(items, outcomes):
            return {}
    return _invalid(items, outcomes, _forecast)


def _are_sound(items: Sequence[Any], outcomes: Sequence[Any]) -> bool:
    """Whether the forecasts are rows of one sound array each, with sound numbers of Python's own types.

    A look at the whole batch, without a function call for each forecast: these would take a tenth of a batch's time.
    """
    if {*map(type, outcomes)} != {Forecast}:
        return False  # a group, or an error among the outcomes
    horizon, width = items[0].horizon, len(items[0].levels)
    points, bands = outcomes[0].point.base, outcomes[0].quantiles.base
    if not (_is_sound_base(points, (horizon,)) and _is_sound_base(bands, (horizon, width)) and _ascending(bands)):
        return False
    steps, table = points.shape[1:], bands.shape[1:]
    # A list, because a generator takes longer.
    sound = [
        (item.horizon == horizon and len(item.levels) == width)
        and (type(point) is type(band) is np.ndarray and point.base is points and band.base is bands)
        and (point.shape == steps and band.shape == table and point.dtype == band.dtype == _FLOAT64)
        and (point.flags.c_contiguous and band.flags.c_contiguous)
        and (type(gate) is type(coverage) is float and type(context) is type(count) is int and type(logs) is bool)
        and (0 <= gate <= 1 and 1 <= context <= len(item.values) and 0 <= count <= _MOST_ORIGINS)
        and (0 <= coverage <= 1 if count else coverage != coverage)
        and (type(warnings) is tuple and (not warnings or all(map(_is_warning, warnings))))
        and (phases is None or _are_phases(phases, horizon))
        for item, (point, band, gate, logs, context, coverage, count, warnings, phases) in zip(
            items, outcomes, strict=True
        )
    ]
    return all(sound)


def _is_sound_base(values: Any, shape: tuple[int, ...]) -> bool:
    return not _array("base", values, (len(values), *shape)) and _finite(values)


def sentiments(items: Sequence[Any], outcomes: Sequence[Any]) -> Mapping[int, str]:
    """Outcomes are probabilities [3] of some float dtype, with the sum 1."""
    return _invalid(items, outcomes, _sentiment)


def indicators(items: Sequence[Any], outcomes: Sequence[Any]) -> Mapping[int, str]:
    """Outcomes are models.indicators.Answer: a row per output of the program. NaN marks bars of the warm-up."""
    return _invalid(items, outcomes, _indicators)


def _invalid(items: Sequence[Any], outcomes: Sequence[Any], mistake_in: Callable[[Any, Any], str]) -> Mapping[int, str]:
    found = {}
    for place, (item, outcome) in enumerate(zip(items, outcomes, strict=True)):
        try:
            mistake = mistake_in(item, outcome)
        except _MISTAKES:
            mistake = "has fields of other types"
        if mistake and not isinstance(outcome, ServiceError):
            found[place] = mistake
    return found


def _forecast(item: Series | Group, outcome: Any) -> str:
    if isinstance(item, Group):
        if type(outcome) is not tuple or len(outcome) != len(item.members):
            return f"is no tuple of {len(item.members)} forecasts"
        return next(filter(None, map(_forecast, item.members, outcome)), "")
    if type(outcome) is not Forecast:
        return f"is a {type(outcome).__name__}, no Forecast"
    mistake = _array("point", outcome.point, (item.horizon,)) or _array(
        "quantiles", outcome.quantiles, (item.horizon, len(item.levels))
    )
    if mistake:
        return mistake
    if not _finite(outcome.point) or not _finite(outcome.quantiles):
        return "has numbers that are not finite"
    return _rest(item, outcome) if _ascending(outcome.quantiles) else "has quantiles that descend along the levels"


def _array(name: str, values: Any, shape: tuple[int, ...]) -> str:
    """The mistake in an array whose memory is written into the answer."""
    if type(values) is not np.ndarray:
        return f"has a {type(values).__name__} as {name}, no array"
    if values.dtype != _FLOAT64:
        return f"has {name} of {values.dtype.str}, not of {_FLOAT64.str}"
    if values.shape != shape:
        return f"has {name} of the shape {values.shape}, not {shape}"
    return "" if values.flags.c_contiguous else f"has {name} that are not C-contiguous"


def _rest(item: Series, outcome: Any) -> str:
    """The mistake in the fields beside the arrays."""
    _, _, gate, logs, context, coverage, count, warnings, phases = outcome
    if not (isinstance(gate, _NUMBER) and 0 <= gate <= 1):
        return "has a gate that is no number from 0 to 1"
    if not isinstance(logs, _FLAG):
        return "has logs other than True and False"
    if not (isinstance(context, _COUNT) and not isinstance(context, bool) and 1 <= context <= len(item.values)):
        return "has a context that is no number of values of the series"
    if not (isinstance(count, _COUNT) and not isinstance(count, bool) and 0 <= count <= _MOST_ORIGINS):
        return "has a coverage_count that is no number of origins"
    if not (isinstance(coverage, _NUMBER) and (0 <= coverage <= 1 if count else coverage != coverage)):
        return "has a coverage that is no share from 0 to 1, or NaN without origins"
    if type(warnings) is not tuple or not all(map(_is_warning, warnings)):
        return "has warnings other than AnswerWarning"
    return "" if phases is None or _are_phases(phases, item.horizon) else "has phases that are no coverage by phase"


def _is_warning(warning: Any) -> bool:
    return (
        type(warning) is AnswerWarning
        and isinstance(warning.code, WarningCode)
        and isinstance(warning.message, str)
        and all(
            isinstance(name, str) and all(isinstance(one, _NUMBER) for one in values)
            for name, values in warning.evidence
        )
    )


def _are_phases(phases: Any, horizon: int) -> bool:
    measured, origins, ahead = phases
    if not (type(phases) is Phases and measured.dtype.kind == "f" and origins.dtype.kind == "i"):
        return False
    if measured.ndim != 1 or origins.shape != measured.shape or origins.min() < 0:
        return False
    shares = np.where(origins, (measured >= 0) & (measured <= 1), np.isnan(measured))
    if ahead is None:
        return bool(shares.all())
    within = ahead.dtype.kind == "i" and ahead.shape == (horizon,) and 0 <= ahead.min() <= ahead.max() < len(measured)
    return bool(within and shares.all())


def _sentiment(item: Any, outcome: Any) -> str:
    if type(outcome) is not np.ndarray or outcome.dtype.kind != "f" or outcome.shape != (3,):
        return "is no float array of three probabilities"
    negative, neutral, positive = outcome.tolist()
    # NaN fails every comparison.
    sound = negative >= 0 and neutral >= 0 and positive >= 0 and abs(negative + neutral + positive - 1) <= _SUM_ROUNDING
    return "" if sound else "is no three probabilities with the sum 1"


def _indicators(item: Task, outcome: Any) -> str:
    if isinstance(outcome, SpoiltSumsError):
        return ""
    program, bars = item.program, item.panel.bars
    if type(outcome) is np.ndarray:
        length = bars if program.last[0] is None else min(program.last[0], bars)
        return _array("rows", outcome, (len(program.last), length)) if program.same_last else "is one array"
    lengths = [bars if last is None else min(last, bars) for last in program.last]
    if type(outcome) is not list or len(outcome) != len(lengths):
        return f"is no list of {len(lengths)} rows"
    return next(filter(None, map(_array, program.outputs, outcome, [(length,) for length in lengths])), "")


def _finite(values: Any) -> bool:
    # A finite sum of squares proves that every value is finite, at a third of the cost of looking at each. The sum may
    # overflow for finite values above 1e150.
    flat = values.ravel()
    return math.isfinite(np.dot(flat, flat)) or bool(np.isfinite(flat).all())


def _ascending(quantiles: Any) -> bool:
    """Whether finite quantiles [..., levels], C-contiguous, ascend along the levels up to rounding."""
    flat, levels = quantiles.reshape(-1), quantiles.shape[-1]
    ascends = np.empty(flat.size, dtype=bool)
    np.less_equal(flat[:-1], flat[1:], out=ascends[:-1])
    ascends[levels - 1 :: levels] = True
    # A fifth of the time of all() for the numbers of one forecast.
    if 0 not in ascends.tobytes():
        return True
    slack = _ROUNDING * np.abs(quantiles).max(axis=-1, keepdims=True)
    return bool((quantiles[..., :-1] - slack <= quantiles[..., 1:]).all())


def owned(outcome: Any) -> Any:
    """The outcome with arrays of its own, in place of arrays that the model may write to again."""
    if isinstance(outcome, np.ndarray):
        return outcome.copy("K")  # another layout stays the mistake that it is
    if type(outcome) is list:
        return list(map(owned, outcome))
    if isinstance(outcome, tuple):
        parts = map(owned, outcome)
        return outcome._make(parts) if hasattr(outcome, "_make") else tuple(parts)
    return outcome
