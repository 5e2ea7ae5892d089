"""A Prometheus histogram for values that are observed several times per request.

Owns the counts and the exposition. One thread at a time observes, any thread collects: no locks, so that an observation
costs a fraction of prometheus_client's, and an observation of a whole array less still per value.
"""

import math
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry
from prometheus_client.core import Exemplar, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Bucket = tuple[str, float] | tuple[str, float, Exemplar]


class Series:
    """The observations with one set of label values."""

    __slots__ = ("_bounds", "_edges", "counts", "exemplars", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._edges = np.array(bounds, np.float64)
        # Per bucket, not cumulative. The last bucket has no upper bound.
        self.counts = [0] * (len(bounds) + 1)
        self.exemplars: dict[int, Exemplar] = {}
        self.total = 0.0

    def observe(self, value: float, exemplar: Mapping[str, str] | None = None, times: int = 1) -> None:
        """Count a value `times` times. The bucket keeps the newest exemplar."""
        place = bisect_left(self._bounds, value)
        self.counts[place] += times
        self.total += value * times
        if exemplar is not None:
            self.exemplify(value, exemplar)

    def observe_all(self, values: NDArray[np.float64]) -> None:
        """Count a vector of values."""
        places = np.searchsorted(self._edges, values)
        for place, count in enumerate(np.bincount(places).tolist()):
            self.counts[place] += count
        self.total += float(values.sum())

    def exemplify(self, value: float, exemplar: Mapping[str, str]) -> None:
        """Set the newest exemplar of a value's bucket, without counting the value."""
        self.exemplars[bisect_left(self._bounds, value)] = Exemplar(dict(exemplar), value, time.time())


class Histogram(Collector):
    """Series by label values. `bounds` are the buckets' upper bounds, ascending."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        *,
        bounds: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._described = (name, documentation)
        self._labels = labels
        self.bounds = bounds
        self._series: dict[tuple[str, ...], Series] = {}
        registry.register(self)

    def labels(self, *values: str) -> Series:
        """The series of these label values, made at the first call."""
        found = self._series.get(values)
        # setdefault: two threads with the same first call get the same series.
        return found if found is not None else self._series.setdefault(values, Series(self.bounds))

    def describe(self) -> list[HistogramMetricFamily]:
        return [HistogramMetricFamily(*self._described, labels=self._labels)]

    def collect(self) -> Iterator[HistogramMetricFamily]:
        [family] = self.describe()
        for values, series in tuple(self._series.items()):
            family.add_metric(values, self._buckets(series), series.total)
        yield family

    def _buckets(self, series: Series) -> list[Bucket]:
        """Cumulative buckets, as the exposition formats require."""
        buckets: list[Bucket] = []
        ends = (*self.bounds, math.inf)
        for place, counted in enumerate(accumulate(tuple(series.counts))):
            end: str = floatToGoString(ends[place])  # type: ignore[no-untyped-call]
            exemplar = series.exemplars.get(place)
            buckets.append((end, counted) if exemplar is None else (end, counted, exemplar))
        return buckets
