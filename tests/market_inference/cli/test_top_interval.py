"""The arithmetic of `top`, against the observations themselves and prometheus_client's own metrics."""

import math
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client import Histogram as Observed

from market_inference.cli.top.interval import Histogram, Interval, gauges, histograms, rates
from market_inference.cli.top.look import parse

BOUNDS = (0.001, 0.01, 0.1, 1.0, 10.0)
OBSERVATIONS = st.lists(st.floats(0.0, 20.0), min_size=1, max_size=60)
LEVELS = st.floats(0.01, 1.0)


class Process:
    """A process whose metrics a test moves."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.seconds = Observed("t_seconds", "x", ("phase",), buckets=BOUNDS, registry=self.registry)
        self.requests = Counter("t_requests", "x", ("method", "code"), registry=self.registry)
        self.waiting = Gauge("t_waiting", "x", ("engine",), registry=self.registry)

    def look(self, at: float):
        return parse(generate_latest(self.registry).decode(), at)

    def observe(self, values):
        for value in values:
            self.seconds.labels("total").observe(value)
        return self


def bucket_of(value: float) -> int:
    return bisect_left(BOUNDS, value)


def nearest_rank(values, level: float) -> float:
    return sorted(values)[max(0, math.ceil(level * len(values)) - 1)]


@given(OBSERVATIONS, OBSERVATIONS, LEVELS)
def test_a_quantile_lies_in_the_bucket_of_the_true_one_and_sees_the_interval_alone(earlier, values, level):
    process = Process().observe(earlier)
    before = process.look(0.0)
    histogram = histograms([Interval(before, process.observe(values).look(1.0))], "t_seconds", "phase")[("total",)]
    assert histogram.count == len(values)
    assert histogram.mean == pytest.approx(sum(values) / len(values), abs=1e-9)
    true = nearest_rank(values, level)
    found = histogram.quantile(level)
    assert found is not None
    if true > BOUNDS[-1]:
        assert (found.value, found.beyond) == (BOUNDS[-1], True)
    else:
        assert not found.beyond
        lower = (0.0, *BOUNDS)[bucket_of(true)]
        assert lower - 1e-9 <= found.value <= BOUNDS[bucket_of(true)] + 1e-9


@given(OBSERVATIONS, LEVELS, LEVELS)
def test_a_higher_level_is_never_a_lower_value(values, one, other):
    histogram = histograms([Interval(Process().look(0.0), Process().observe(values).look(1.0))], "t_seconds")[()]
    low, high = histogram.quantile(min(one, other)), histogram.quantile(max(one, other))
    assert (low.beyond, low.value) <= (high.beyond, high.value)


def test_quantiles_are_interpolated_as_prometheus_does():
    histogram = Histogram({0.1: 0.0, 1.0: 10.0, math.inf: 10.0}, 5.0)
    assert histogram.quantile(0.5).value == pytest.approx(0.1 + 0.9 * 5 / 10)
    assert histogram.quantile(1.0).value == pytest.approx(1.0)


def test_nothing_observed_has_neither_mean_nor_quantile():
    assert Histogram().mean is None
    assert Histogram().quantile(0.5) is None


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=4), st.floats(0.1, 100.0))
def test_rates_of_several_processes_add_up(growths, seconds):
    intervals = []
    for first, growth in growths:
        process = Process()
        process.requests.labels("Predict", "OK").inc(first)
        before = process.look(0.0)
        process.requests.labels("Predict", "OK").inc(growth)
        process.requests.labels("Predict", "UNAVAILABLE").inc(1)
        intervals.append(Interval(before, process.look(seconds)))
    found = rates(intervals, "t_requests_total", "method", "code")
    assert found["Predict", "OK"] == pytest.approx(sum(growth for _, growth in growths) / seconds)
    assert found["Predict", "UNAVAILABLE"] == pytest.approx(len(growths) / seconds)
    assert rates(intervals, "t_requests_total")[()] == pytest.approx(sum(found.values()))


@given(st.integers(1, 100), st.integers(0, 100))
def test_a_restarted_process_never_shows_a_negative_rate(old, new):
    before, after = Process(), Process()
    before.requests.labels("Predict", "OK").inc(old)
    after.requests.labels("Predict", "OK").inc(new)
    rate = rates([Interval(before.look(0.0), after.look(1.0))], "t_requests_total")[()]
    assert rate == (new - old if new >= old else new)


def test_gauges_are_the_last_values_summed():
    one, other = Process(), Process()
    one.waiting.labels("forecast").set(3)
    other.waiting.labels("forecast").set(4)
    assert gauges([one.look(0.0), other.look(0.0)], "t_waiting", "engine") == {("forecast",): 7.0}
    assert gauges([one.look(0.0)], "unknown") == {}


def test_what_is_no_page_of_metrics_is_refused():
    with pytest.raises(ValueError, match=r".+"):
        parse("<html>\n<body>not metrics", 0.0)
