"""What work costs: a line fitted online per model and bucket, and upper rates for work that was not measured yet.

Owns the estimates `seconds(batch) = fixed + per_unit * units` and the bound on units that certainly end in time. The
scheduler and admission use both.
"""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary, ref

from inference.batching.job import BatchBounds

FORGETTING = 0.98
_PRIOR_UNCERTAINTY = 1e6
SURPRISE = 2.0
"""A batch that takes so many times longer than expected is a surprise: its items are of another kind."""
SMALL_SECONDS = 0.02
"""The error of a smaller estimate comes from the clock and the operating system, and says nothing about the work."""
# Share of a bucket's highest rate that remains after each batch, so that a costly kind of item is remembered for some
# hundred batches.
_RATE_MEMORY = 0.98
# A model's worst rate rises at most so many times per batch: a pause of the machine is not a property of the model.
_WORST_GROWTH = 2.0
_WORST_MEMORY = 0.998
TRUSTED_BATCHES = 8
"""Before so many measured batches, costs say little."""
UNMEASURED_RATE = 1e-5
"""Seconds per unit of a model of which no batch was measured: above the rate of every embedded model but fracast."""


@dataclass(slots=True)
class Line:
    """Recursive least squares with forgetting for y = fixed + slope * x, both kept non-negative.

    Source: Haykin, Adaptive Filter Theory, RLS. `scale` keeps x near 1, because the units of models differ by 10^6.
    `ceiling` is the number of units that fit the device's memory, for a bucket that once ran out of memory. `rate` is
    the highest recent seconds per unit of a batch that took much longer than expected, 0 without one.
    """

    fixed: float = 0.0
    slope: float = 0.0
    measured: int = 0
    scale: float = 1.0
    p00: float = _PRIOR_UNCERTAINTY
    p01: float = 0.0
    p11: float = _PRIOR_UNCERTAINTY
    ceiling: float = math.inf
    rate: float = 0.0

    def learn(self, units: float, seconds: float) -> None:
        """Learn from one measured batch."""
        surprise = seconds > max(SMALL_SECONDS, SURPRISE * self.seconds(units))
        rate = (seconds - self.fixed) / max(units, 1.0) if surprise else 0.0
        self.rate = max(self.rate * _RATE_MEMORY, rate)
        if not self.measured:
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
        self._keep_non_negative(x, seconds)
        self.measured += 1

    def _keep_non_negative(self, x: float, seconds: float) -> None:
        """A negative part is noise: the other part takes its share, so that the line still explains this batch."""
        if self.slope < 0:
            self.fixed, self.slope = seconds, 0.0
        elif self.fixed < 0:
            self.fixed, self.slope = 0.0, seconds / max(x, 1e-12)

    def seconds(self, units: float) -> float:
        """A batch's expected duration; 0 before the first measurement."""
        return self.fixed + self.slope * units / self.scale

    @property
    def per_unit(self) -> float:
        return self.slope / self.scale


# Clients choose parts of a bucket, such as parameters. The oldest line goes first.
MOST_LINES = 1024


@dataclass(slots=True)
class _ModelCosts:
    """A model's lines by bucket, and the worst seconds per unit (0 before the first measurement).

    `floor` is the worst rate of the model's warm-up. The warm-up includes the costliest kind of item.
    """

    lines: dict[Hashable, Line] = field(default_factory=dict)
    worst: float = 0.0
    floor: float = 0.0
    # The lowest recent seconds per unit: that of large batches.
    lowest: float = math.inf
    measured: int = 0

    def learn(self, rate: float) -> None:
        self.measured += 1
        self.lowest = min(self.lowest / _RATE_MEMORY, rate)
        rising = min(rate, _WORST_GROWTH * self.worst) if self.worst else rate
        self.worst = max(self.floor, _WORST_MEMORY * self.worst, rising)


class Costs:
    """A line per (model, bucket), held weakly by model so that an unloaded model's memory is freed."""

    def __init__(self) -> None:
        self._models: WeakKeyDictionary[Any, _ModelCosts] = WeakKeyDictionary()
        # The model of the last lookup: a look into the dictionary costs as much as the rest of a small job's estimate.
        self._latest: tuple[Callable[[], Any], _ModelCosts] = (lambda: None, _ModelCosts())

    def line(self, key: tuple[Any, Hashable]) -> Line:
        """The line of a (model, bucket); a new one has no measurement."""
        model, bucket = key
        lines = self._of(model).lines
        line = lines.get(bucket)
        if line is None:
            line = lines[bucket] = Line()
            if len(lines) > MOST_LINES:
                del lines[next(iter(lines))]
        return line

    def learn(self, key: tuple[Any, Hashable], units: int, seconds: float) -> None:
        """Learn from one measured batch of `units` padded units."""
        self.line(key).learn(units, seconds)
        self._of(key[0]).learn(seconds / max(units, 1))

    def learn_warm_up(self, key: tuple[Any, Hashable], units: int, seconds: float) -> None:
        """Learn from one measured batch of a model's warm-up."""
        self.line(key).learn(units, seconds)
        costs = self._of(key[0])
        costs.worst = costs.floor = max(costs.floor, seconds / max(units, 1))

    def share(self, key: tuple[Any, Hashable], units: int, batch: BatchBounds) -> float:
        """An item's expected seconds in a full batch: the item's time and a part of the batch's fixed cost.

        An unmeasured bucket costs its units at the model's worst rate.
        """
        line = self.line(key)
        if not line.measured:
            return units * self.worst_rate(key[0])
        own = line.per_unit * units
        return own + line.fixed * min(1.0, max(units / batch.units, 1 / batch.items, own / batch.seconds))

    def alone(self, key: tuple[Any, Hashable], units: int) -> float:
        """The expected seconds of an item in a batch of its own, from above where items of the bucket differ."""
        line = self.line(key)
        if not line.measured:
            return units * self.worst_rate(key[0])
        return max(line.seconds(units), line.rate * units)

    def worst_rate(self, model: Any) -> float:
        """The highest seconds per unit that a batch of the model has shown."""
        return self._of(model).worst or UNMEASURED_RATE

    def lowest_rate(self, model: Any) -> float:
        """The lowest seconds per unit of the model's recent batches; 0 after only a few."""
        costs = self._of(model)
        return costs.lowest if costs.measured >= TRUSTED_BATCHES else 0.0

    def bounded_units(self, key: tuple[Any, Hashable], usual: float, worst: float) -> float:
        """Units that end within `usual` seconds at the bucket's recent rate and `worst` at the model's worst rate."""
        rate, slowest = self.line(key).rate, max(self.worst_rate(key[0]), 1e-12)
        return min(worst / slowest, usual / rate) if rate else worst / slowest

    def _of(self, model: Any) -> _ModelCosts:
        latest, costs = self._latest
        if latest() is model:
            return costs
        costs = self._find(model)
        self._latest = ref(model), costs
        return costs

    def _find(self, model: Any) -> _ModelCosts:
        costs = self._models.get(model)
        if costs is None:
            costs = self._models[model] = _ModelCosts()
        return costs
