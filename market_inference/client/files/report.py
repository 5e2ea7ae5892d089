"""Findings in bars worth a look: gaps in time, suspected splits, and prints that differ by a factor and revert."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from market_inference.client.files.bars import Bars
from market_inference.client.files.order import shown

_RATIOS = (1.5, 2, 3, 4, 5, 6, 7, 8, 10, 15, 20, 25, 30, 50, 100)
_TOLERANCE = 0.06
_SMALLEST_JUMP = 1.4
_SHOWN = 5


def span(bars: Bars) -> str:
    """The first and the last time, and the usual step."""
    if bars.times is None or not len(bars.times):
        return "no times"
    text = f"{shown(bars.times[0])} to {shown(bars.times[-1])}"
    if len(bars.times) < 2:
        return text
    return f"{text}, usually {_duration(_step(bars))} apart"


def gaps(bars: Bars) -> list[str]:
    """Steps in time that are longer than usual and rare: neither nights, weekends nor regular closing days."""
    if bars.times is None or len(bars.times) < 10:
        return []
    steps = np.diff(bars.times.astype(np.int64))
    counts = Counter(steps.tolist())
    regular = max(3, len(steps) // 100)
    usual = _step(bars)
    places = [at for at, step in enumerate(steps.tolist()) if step > 1.5 * usual and counts[step] < regular]
    found = [
        f"{shown(bars.times[at])} to {shown(bars.times[at + 1])}: {_duration(int(steps[at]))}" for at in places[:_SHOWN]
    ]
    return _with_rest(found, len(places))


def jumps(bars: Bars) -> list[str]:
    """Suspected splits and bad prints in the closes."""
    if "close" not in bars:
        return []
    close = bars["close"]
    if len(close) < 3 or (close <= 0).any():
        return []
    ratios = close[1:] / close[:-1]
    found = []
    places = np.flatnonzero(np.abs(np.log(ratios)) > np.log(_SMALLEST_JUMP)).tolist()
    reverted = {at + 1 for at in places if at + 1 < len(ratios) and abs(np.log(ratios[at] * ratios[at + 1])) < 0.1}
    for at in places:
        if at in reverted:
            continue
        when = shown(bars.times[at + 1]) if bars.times is not None else f"bar {at + 1}"
        ratio = float(ratios[at])
        if at + 1 in reverted:
            found.append(f"{when}: {ratio:.4g} times the close before, then back: a bad print?")
            continue
        size = max(ratio, 1 / ratio)
        match = min(_RATIOS, key=lambda wanted: abs(size / wanted - 1))
        if abs(size / match - 1) < _TOLERANCE:
            kind = f"{match:g} for 1" if ratio < 1 else f"1 for {match:g} (reverse)"
            found.append(f"{when}: {ratio:.4g} times the close before: a split {kind} without adjustment?")
        else:
            found.append(f"{when}: {ratio:.4g} times the close before")
    return _with_rest(found[:_SHOWN], len(found))


def _step(bars: Bars) -> int:
    if bars.times is None:
        return 0
    return int(np.median(np.diff(bars.times.astype(np.int64))))


def _duration(nanoseconds: int) -> str:
    seconds = nanoseconds / 1e9
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size:
            count = seconds / size
            return f"{count:.3g} {unit}{'' if count == 1 else 's'}"
    return f"{seconds:.3g} seconds"


def _with_rest(found: Sequence[str], count: int) -> list[str]:
    return [*found, f"and {count - len(found)} more"] if count > len(found) else list(found)
