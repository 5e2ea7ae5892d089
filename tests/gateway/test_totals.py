"""The metrics of several gateway workers as one page."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from gateway.metrics import Metrics
from gateway.totals import Totals, added


def written(pages, of_dead) -> str:
    class Sums(Collector):
        def collect(self):
            return added(pages, of_dead)

    registry = CollectorRegistry()
    registry.register(Sums())
    return generate_latest(registry).decode()


def page(**values: float) -> str:
    lines = ["# TYPE a_total counter", f'a_total{{m="x"}} {values["a"]}', "# TYPE g gauge", f"g {values['g']}"]
    lines += ["# TYPE h histogram", f'h_bucket{{le="+Inf"}} {values["h"]}', f"h_count {values['h']}", "h_sum 0.5"]
    return "\n".join([*lines, "# TYPE market_gateway_ready_replicas gauge", "market_gateway_ready_replicas 2", ""])


def test_samples_of_workers_are_added_except_those_of_shared_state():
    text = written([page(a=3, g=1, h=5), page(a=4, g=2, h=6)], {})
    for line in ('a_total{m="x"} 7.0', "g 3.0", 'h_bucket{le="+Inf"} 11.0', "h_count 11.0", "h_sum 1.0"):
        assert line in text.splitlines()
    assert "market_gateway_ready_replicas 2.0" in text.splitlines()


def test_the_counts_of_a_dead_worker_stay_in_the_sum():
    totals = Totals(list)
    totals._last = {"dead:1": page(a=3, g=1, h=5), "live:1": page(a=4, g=2, h=6)}
    totals.keep_counters("dead:1")
    text = written([totals._last["live:1"]], totals._of_dead)
    assert 'a_total{m="x"} 7.0' in text.splitlines()
    assert "g 2.0" in text.splitlines()


def test_the_counts_of_a_dead_worker_stay_when_no_other_worker_has_any():
    totals = Totals(list)
    totals._last = {"dead:1": page(a=3, g=1, h=5)}
    totals.keep_counters("dead:1")
    alive = "# TYPE a_total counter\n# TYPE g gauge\n# TYPE h histogram\n"
    text = written([alive], totals._of_dead)
    for line in ('a_total{m="x"} 3.0', 'h_bucket{le="+Inf"} 5.0', "h_count 5.0", "h_sum 0.5"):
        assert line in text.splitlines()


def test_figures_of_processes_are_added_except_start_time_and_limits():
    def process(**values: float) -> str:
        kinds = {"cpu_seconds_total": "counter"}
        return "".join(
            f"# TYPE process_{name} {kinds.get(name, 'gauge')}\nprocess_{name} {value}\n"
            for name, value in values.items()
        )

    first = process(cpu_seconds_total=2.5, resident_memory_bytes=100, start_time_seconds=50, max_fds=1024, open_fds=3)
    second = process(cpu_seconds_total=1, resident_memory_bytes=200, start_time_seconds=40, max_fds=512, open_fds=4)
    assert samples(written([first, second], {})) == {
        "process_cpu_seconds_total": 3.5,
        "process_resident_memory_bytes": 300,
        "process_start_time_seconds": 40,
        "process_max_fds": 512,
        "process_open_fds": 7,
    }


def test_two_equal_pages_of_a_real_worker_are_added():
    metrics = Metrics()
    metrics.build.labels("1.2.3").set(1)
    metrics.in_flight_limit.set(100)
    metrics.known_replicas.set(2)
    metrics.requests.labels("Predict", "OK").inc(5)
    metrics.seconds.labels("Predict", "total").observe(0.3, {"trace_id": "a" * 32})
    page = generate_latest(metrics.registry).decode()
    found = samples(written([page, page], {}))
    assert found['market_gateway_build_info{version="1.2.3"}'] == 1
    assert found["market_gateway_in_flight_limit_requests"] == 200
    assert found["market_gateway_known_replicas"] == 2
    assert found['market_gateway_requests_total{code="OK",method="Predict"}'] == 10
    assert found['market_gateway_request_phase_seconds_bucket{le="0.5",method="Predict",phase="total"}'] == 2
    assert not [name for name in found if name.startswith("python_") or "_created" in name]


def samples(page: str) -> dict[str, float]:
    lines = (line.rpartition(" ") for line in page.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}
