"""What happened between two looks at a service: increases, rates and quantiles. Pure functions.

Owns the arithmetic, which is Prometheus' own, so that the figures are those of the dashboards. Which metrics there are
is board.py's.
"""

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from market_inference.cli.top.look import Labels, Look

Group = tuple[str, ...]
"""The values of the labels that were asked for, in that order."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Two looks at one process, `before` and `after`."""

    before: Look
    after: Look

    @property
    def seconds(self) -> float:
        return self.after.at - self.before.at

    def increases(self, name: str) -> Iterable[tuple[Labels, float]]:
        """By how much each counter of a name has grown.

        A counter that is lower than before began anew, as after a restart, and has grown by what it says; so has one
        that was not there before.
        """
        known = self.before.samples.get(name, {})
        for labels, value in self.after.samples.get(name, {}).items():
            last = known.get(labels, 0.0)
            yield dict(labels), value - last if value >= last else value


@dataclass(slots=True)
class Histogram:
    """What a histogram saw in an interval: observations at or below each bound (`le`), their count and their sum."""

    buckets: dict[float, float] = field(default_factory=lambda: defaultdict(float))
    total: float = 0.0

    @property
    def count(self) -> float:
        return self.buckets.get(math.inf, 0.0)

    @property
    def mean(self) -> float | None:
        """Of all observations, exactly; None when there was none."""
        return self.total / self.count if self.count else None

    def quantile(self, level: float) -> "Quantile | None":
        """Estimated within the bucket that holds it; None when nothing was observed. `level` is within [0, 1].

        Source: Prometheus, histogram_quantile. Observations count as evenly spread over their bucket, the first one of
        which begins at zero. What lies above the highest finite bound is known to do so and no more.
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
    """An estimate; with `beyond`, what is sought lies above `value`, nobody knows how far."""

    value: float
    beyond: bool


def _rising(counts: Sequence[float]) -> list[float]:
    """A page is not written in one instant, so a bucket may lag behind the one below it."""
    risen: list[float] = []
    for count in counts:
        risen.append(max(count, risen[-1]) if risen else count)
    return risen


def rates(intervals: Iterable[Interval], name: str, *by: str) -> dict[Group, float]:
    """The growth per second of a counter over several processes, summed per values of the labels `by`."""
    sums: dict[Group, float] = defaultdict(float)
    for interval in intervals:
        for labels, increase in interval.increases(name):
            sums[group(labels, by)] += increase / interval.seconds
    return dict(sums)


def histograms(intervals: Iterable[Interval], name: str, *by: str) -> dict[Group, Histogram]:
    """What a histogram saw over several processes, summed per values of the labels `by`."""
    found: dict[Group, Histogram] = defaultdict(Histogram)
    for interval in intervals:
        for labels, increase in interval.increases(f"{name}_bucket"):
            found[group(labels, by)].buckets[float(labels["le"])] += increase
        for labels, increase in interval.increases(f"{name}_sum"):
            found[group(labels, by)].total += increase
    return {key: histogram for key, histogram in found.items() if histogram.count}


def gauges(looks: Iterable[Look], name: str, *by: str) -> dict[Group, float]:
    """The last values of a gauge over several processes, summed per values of the labels `by`."""
    sums: dict[Group, float] = defaultdict(float)
    for look in looks:
        for labels, value in look.all(name):
            sums[group(labels, by)] += value
    return dict(sums)


def group(labels: Labels, by: Sequence[str]) -> Group:
    return tuple(labels.get(name, "") for name in by)


def share(part: Mapping[Group, float], whole: Mapping[Group, float], key: Group) -> float | None:
    """One of the parts over its whole; None when the whole is nothing."""
    return part.get(key, 0.0) / whole[key] if whole.get(key) else None
