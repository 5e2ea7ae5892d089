"""The histogram's exposition equals the exposition of prometheus_client's histogram."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Histogram as Reference
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

from runtime.metrics.histogram import Histogram

BOUNDS = (0.001, 0.01, 0.5, 1.0)
# Bounds belong to the bucket that they end.
values = st.floats(0, 3) | st.sampled_from(BOUNDS)


def ours(observed):
    registry = CollectorRegistry()
    histogram = Histogram("time_seconds", "Time.", ("method", "phase"), bounds=BOUNDS, registry=registry)
    for method, value in observed:
        histogram.labels(method, "total").observe(value)
    return registry


@given(st.lists(st.tuples(st.sampled_from("ab"), values), max_size=30))
def test_the_page_is_the_one_of_prometheus_client(observed):
    registry = CollectorRegistry()
    reference = Reference("time_seconds", "Time.", ("method", "phase"), buckets=BOUNDS, registry=registry)
    for method, value in observed:
        reference.labels(method, "total").observe(value)
    expected = [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]
    assert generate_latest(ours(observed)).decode().splitlines() == expected


@given(st.lists(values, min_size=1, max_size=30))
def test_many_at_once_are_counted_as_one_by_one(observed):
    registry = CollectorRegistry()
    series = Histogram("time_seconds", "Time.", (), bounds=BOUNDS, registry=registry).labels()
    for value in observed:
        series.observe(value)
    counts, total = list(series.counts), series.total
    series.observe_all(np.array(observed))
    assert series.counts == [2 * count for count in counts]
    assert np.isclose(series.total, 2 * total)


def test_a_bucket_keeps_its_newest_exemplar():
    registry = CollectorRegistry()
    series = Histogram("time_seconds", "Time.", (), bounds=BOUNDS, registry=registry).labels()
    series.observe(0.2, {"trace_id": "a"})
    series.observe(0.3, {"trace_id": "b"})
    series.observe(0.4)
    series.observe_all(np.array([2.0]))
    series.exemplify(2.0, {"trace_id": "c"})
    [half] = [line for line in openmetrics(registry).decode().splitlines() if 'le="0.5"' in line]
    [above] = [line for line in openmetrics(registry).decode().splitlines() if 'le="+Inf"' in line]
    assert half.startswith('time_seconds_bucket{le="0.5"} 3.0 # {trace_id="b"} 0.3 ')
    assert above.startswith('time_seconds_bucket{le="+Inf"} 4.0 # {trace_id="c"} 2.0 ')
