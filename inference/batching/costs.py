"""What work costs: a line fitted online per model and bucket.

Owns the estimate `seconds(batch) = fixed + per_unit * units`; what is done with it is schedule's and admission's.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

FORGETTING = 0.98
_PRIOR_UNCERTAINTY = 1e6


@dataclass(slots=True)
class Line:
    """Recursive least squares with forgetting for y = fixed + slope * x, both kept non-negative.

    Source: Haykin, Adaptive Filter Theory, RLS. `scale` keeps x near 1, since the units of models differ by 10^6.
    `ceiling` is the units that fit the device's memory, for a bucket that once ran out of it.
    """

    fixed: float = 0.0
    slope: float = 0.0
    seen: int = 0
    scale: float = 1.0
    p00: float = _PRIOR_UNCERTAINTY
    p01: float = 0.0
    p11: float = _PRIOR_UNCERTAINTY
    ceiling: float = math.inf

    def learn(self, units: float, seconds: float) -> None:
        """Take in one measured batch."""
        if not self.seen:
            self.scale = max(units, 1.0)
        x = units / self.scale
        error = seconds - self.fixed - self.slope * x
        g0, g1 = self.p00 + self.p01 * x, self.p01 + self.p11 * x
        denominator = FORGETTING + g0 + g1 * x
        k0, k1 = g0 / denominator, g1 / denominator
        self.fixed, self.slope = self.fixed + k0 * error, self.slope + k1 * error
        self.p00, self.p01, self.p11 = (
            min((self.p00 - k0 * g0) / FORGETTING, _PRIOR_UNCERTAINTY),
            (self.p01 - k0 * g1) / FORGETTING,
            min((self.p11 - k1 * g1) / FORGETTING, _PRIOR_UNCERTAINTY),
        )
        self._keep_sane(x, seconds)
        self.seen += 1

    def _keep_sane(self, x: float, seconds: float) -> None:
        """A negative part is noise: give its share to the other one, so that this batch is still explained."""
        if self.slope < 0:
            self.fixed, self.slope = seconds, 0.0
        elif self.fixed < 0:
            self.fixed, self.slope = 0.0, seconds / max(x, 1e-12)

    def seconds(self, units: float) -> float:
        """A batch's expected duration; 0 while nothing is known."""
        return self.fixed + self.slope * units / self.scale

    @property
    def per_unit(self) -> float:
        return self.slope / self.scale


# Buckets may hold what callers choose, such as parameters: what was learnt first is forgotten first.
MOST_LINES = 1024


class Costs:
    """A line per (model, bucket). Knowledge of a model goes with it, so that an unloaded one is really freed."""

    def __init__(self) -> None:
        self._lines: WeakKeyDictionary[Any, dict[Hashable, Line]] = WeakKeyDictionary()

    def line(self, key: tuple[Any, Hashable]) -> Line:
        """The line of a (model, bucket), new and knowing nothing when it was never seen."""
        model, bucket = key
        lines = self._lines.get(model)
        if lines is None:
            lines = self._lines[model] = {}
        line = lines.get(bucket)
        if line is None:
            line = lines[bucket] = Line()
            if len(lines) > MOST_LINES:
                del lines[next(iter(lines))]
        return line
