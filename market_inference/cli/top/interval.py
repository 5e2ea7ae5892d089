"""Increases, rates and quantiles between two scrapes of a service. Pure functions.

Owns the arithmetic, the same as Prometheus', so that the figures equal the dashboards'. board.py names the metrics.
"""

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from market_inference.cli.top.look import Labels, Look

Group = tuple[str, ...]
"""The values of the requested labels, in the order of the request."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Two scrapes of one process, `before` and `after`."""

    before: Look
    after: Look

    @property
    def seconds(self) -> float:
        return self.after.at - self.before.at

    def increases(self, name: str) -> Iterable[tuple[Labels, float]]:
        """The growth of every counter with this name.

        A counter below its earlier value restarted at zero with its process: its growth is its value. The same holds
        for a counter that the earlier scrape did not have.
        """
        known = self.before.samples.get(name, {})
        for labels, value in self.after.samples.get(name, {}).items():
            last = known.get(labels, 0.0)
            yield dict(labels), value - last if value >= last else value


@dataclass(slots=True)
class Histogram:
    """A histogram's observations in an interval: counts at or below each bound (`le`), total count, and sum."""

    buckets: dict[float, float] = field(default_factory=lambda: defaultdict(float))
    total: float = 0.0

    @property
    def count(self) -> float:
        return self.buckets.get(math.inf, 0.0)

    @property
    def mean(self) -> float | None:
        """The exact mean of all observations; None without observations."""
        return self.total / self.count if self.count else None

    def quantile(self, level: float) -> "Quantile | None":
        """The quantile at `level` in [0, 1], interpolated within its bucket; None without observations.

        Source: Prometheus, histogram_quantile. Observations count as evenly spread over a bucket; the first bucket
        begins at zero. A quantile above the highest finite bound is reported as `beyond` that bound.
        """
        if not self.count:
            return None
        bounds = sorted(self.buckets)
        counts = _rising([self.buckets[bound] for bound in bounds])
        rank = level * counts[-1]
        at = min(bisect_left(counts, rank), len(bounds) - 1)
        lower = bounds[at - 1] if at else 0.0
        if math.isinf(bounds[at]):
            return Quantile(lower, beyond=True)
        below = counts[at - 1] if at else 0.0
        inside = counts[at] - below
        share = (rank - below) / inside if inside else 0.0
        return Quantile(lower + (bounds[at] - lower) * share, beyond=False)


@dataclass(frozen=True, slots=True)
class Quantile:
    """An estimate; with `beyond`, the quantile lies at an unknown distance above `value`."""

    value: float
    beyond: bool


def _rising(counts: Sequence[float]) -> list[float]:
    """Cumulative counts made ascending: a scrape may fall between the updates of two buckets."""
    risen: list[float] = []
    for count in counts:
        risen.append(max(count, risen[-1]) if risen else count)
    return risen


def rates(intervals: Iterable[Interval], name: str, *by: str) -> dict[Group, float]:
    """The growth per second of a counter, summed over processes, per combination of the labels `by`."""
    sums: dict[Group, float] = defaultdict(float)
    for interval in intervals:
        for labels, increase in interval.increases(name):
            sums[group(labels, by)] += increase / interval.seconds
    return dict(sums)


def histograms(intervals: Iterable[Interval], name: str, *by: str) -> dict[Group, Histogram]:
    """A histogram's observations, summed over processes, per combination of the labels `by`."""
    found: dict[Group, Histogram] = defaultdict(Histogram)
    for interval in intervals:
        for labels, increase in interval.increases(f"{name}_bucket"):
            found[group(labels, by)].buckets[float(labels["le"])] += increase
        for labels, increase in interval.increases(f"{name}_sum"):
            found[group(labels, by)].total += increase
    return {key: histogram for key, histogram in found.items() if histogram.count}


def gauges(looks: Iterable[Look], name: str, *by: str) -> dict[Group, float]:
    """The newest values of a gauge, summed over processes, per combination of the labels `by`."""
    sums: dict[Group, float] = defaultdict(float)
    for look in looks:
        for labels, value in look.all(name):
            sums[group(labels, by)] += value
    return dict(sums)


def group(labels: Labels, by: Sequence[str]) -> Group:
    return tuple(labels.get(name, "") for name in by)


def share(part: Mapping[Group, float], whole: Mapping[Group, float], key: Group) -> float | None:
    """`part` over `whole` at `key`; None where the whole is zero or absent."""
    return part.get(key, 0.0) / whole[key] if whole.get(key) else None
