"""The warnings of a forecast: outliers, suspected split or bad value, stale tail, backtests, coverage, cycles.

Owns the conditions and the texts. The searches are in outliers.py, splits.py and faults.py.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from models.forecast import faults, outliers, splits
from models.forecast.profile import make_profile
from models.forecast.series import Array, Series
from models.warning import AnswerWarning, WarningCode

# This many equal newest values are stale.
LEAST_STALE = 10
# Below this count of origins a measured coverage is no evidence.
LEAST_ORIGINS = 4
# In fewer cycles some phase was seen once, or not at all.
LEAST_CYCLES = 2
NOMINAL = 0.8
# A coverage is far from nominal at a distance of FAR, where chance gives such a count with probability < LEAST_CHANCE.
FAR = 0.15
LEAST_CHANCE = 1e-3
MOST_POSITIONS = 16
_TOO_NARROW = "; the bands may be too narrow for the first move after it"
_RESTING = "; the bands and the coverage rest on the volatility before, and are too wide if the value stays fixed"
_OF_COVERAGE = (WarningCode.FEW_BACKTESTS, WarningCode.COVERAGE_OFF_NOMINAL)

Warnings: TypeAlias = tuple[AnswerWarning, ...]


def examine(item: Series) -> tuple[Series, Warnings]:
    """The item with isolated outliers replaced, and the warnings about the data."""
    warnings = []
    bars = _stale(item.values)
    profile = make_profile(item.values)
    positions = outliers.find(profile)
    if len(positions):
        warnings.append(_treated(positions.tolist()))
        item = item._replace(values=outliers.replaced(item.values, positions, logs=profile.logs))
        profile = make_profile(item.values)
    split, fault = splits.find(profile), faults.find(item.values, profile)
    if split:
        warnings.append(_split(split))
    if fault and not (split and split.bars_ago == fault.bars_ago):
        warnings.append(_fault(fault))
    if bars >= LEAST_STALE:
        warnings.append(_tail(bars))
    return item, tuple(warnings)


def _stale(values: Array) -> int:
    """How many of the newest values are equal; 1 is the newest value alone."""
    if values[-2] != values[-1]:
        return 1
    changes = np.flatnonzero(values != values[-1])
    return len(values) - 1 - int(changes[-1]) if len(changes) else len(values)


def _treated(positions: Sequence[int]) -> AnswerWarning:
    newest = positions[-MOST_POSITIONS:]
    many = len(positions) > 1
    return AnswerWarning(
        WarningCode.OUTLIERS_TREATED,
        f"{len(positions)} isolated {'values' if many else 'value'} far from both neighbours "
        f"{'were' if many else 'was'} replaced by interpolation ({'positions' if many else 'position'} "
        f"{', '.join(map(str, newest))}, 0 is the oldest); check the source for bad prints",
        (("count", (float(len(positions)),)), ("positions", tuple(map(float, newest)))),
    )


def _split(split: splits.Split) -> AnswerWarning:
    terms = f"{split.ratio:g}:1 split" if split.ratio > 1 else f"1:{1 / split.ratio:g} reverse split"
    when = "the newest bar" if split.bars_ago == 0 else f"{split.bars_ago} bars before the newest"
    return AnswerWarning(
        WarningCode.SUSPECTED_SPLIT,
        f"the step at {when} looks like an unadjusted {terms}, which makes the bands too wide; "
        "send prices adjusted for splits",
        (("ratio", (split.ratio,)), ("bars_ago", (float(split.bars_ago),))),
    )


def _fault(fault: faults.Fault) -> AnswerWarning:
    where = "the newest value" if fault.bars_ago == 0 else f"the value {fault.bars_ago} bars before the newest"
    if fault.ratio > 1:
        what = f"{where} is {fault.ratio:.3g} times the one before"
    elif fault.ratio > 0:
        what = f"{where} is 1/{1 / fault.ratio:.3g} of the one before"
    else:
        what = f"{where} is {fault.value:.6g} in a series of positive values"
    return AnswerWarning(
        WarningCode.SUSPECTED_BAD_VALUE,
        f"{what} and was kept; if the source is wrong there (unit, decimal point, fill value, split), "
        "the forecast is wrong, too",
        (("ratio", (fault.ratio,)), ("bars_ago", (float(fault.bars_ago),)), ("value", (fault.value,))),
    )


def _tail(bars: int) -> AnswerWarning:
    return AnswerWarning(
        WarningCode.STALE_TAIL,
        f"the newest {bars} values are equal, as in a trading halt or a stale feed{_TOO_NARROW}",
        (("bars", (float(bars),)),),
    )


def resting(warnings: Warnings) -> Warnings:
    """``warnings`` of a forecast whose bands leave halts out (halts.py)."""
    return tuple(found._replace(message=found.message.replace(_TOO_NARROW, _RESTING)) for found in warnings)


@lru_cache(maxsize=4096)
def of_coverage(share: float, origins: int) -> Warnings:
    """The warnings about a coverage ``share`` measured at so many origins; none where the coverage is as promised."""
    if origins < LEAST_ORIGINS:
        return (
            AnswerWarning(
                WarningCode.FEW_BACKTESTS,
                f"the coverage was measured at {origins} past origins, too few to judge the bands; "
                "send a longer context or ask for a shorter horizon",
                (("origins", (float(origins),)), ("least", (float(LEAST_ORIGINS),))),
            ),
        )
    if abs(share - NOMINAL) < FAR or chance(round(share * origins), origins) >= LEAST_CHANCE:
        return ()
    side = "narrow" if share < NOMINAL else "wide"
    return (
        AnswerWarning(
            WarningCode.COVERAGE_OFF_NOMINAL,
            f"the {NOMINAL:.0%} interval held {share:.0%} of {origins} backtests on this series; "
            f"the bands may be too {side}",
            (("nominal", (NOMINAL,)), ("measured", (share,)), ("origins", (float(origins),))),
        ),
    )


def of_cycles(cycles: float, period: int) -> Warnings:
    """The warning about values that hold so many ``cycles`` of ``period`` phases, if these are too few."""
    if cycles >= LEAST_CYCLES:
        return ()
    return (
        AnswerWarning(
            WarningCode.FEW_CYCLES,
            f"the values hold {cycles:.2g} cycles of {period} steps, too few to tell the volatility of each phase; "
            f"send {LEAST_CYCLES} cycles or more, or ask without a cycle (period, times)",
            (("cycles", (cycles,)), ("least", (float(LEAST_CYCLES),))),
        ),
    )


def with_coverage(warnings: Warnings, share: float, origins: int) -> Warnings:
    """``warnings`` with the coverage warnings replaced."""
    kept = tuple(found for found in warnings if found.code not in _OF_COVERAGE)
    return kept + of_coverage(share, origins)


def chance(hits: int, origins: int) -> float:
    """The two-sided binomial probability of a count at least as far from the nominal coverage as ``hits``."""
    masses = [
        math.comb(origins, count) * NOMINAL**count * (1 - NOMINAL) ** (origins - count) for count in range(origins + 1)
    ]
    return min(1.0, 2 * min(sum(masses[: hits + 1]), sum(masses[hits:])))
