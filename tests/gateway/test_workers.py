"""Several workers on one port: metrics add up, a dead one is replaced, all end together."""

import json
import os
import signal
from pathlib import Path

import psutil
import pytest
from prometheus_client import generate_latest

from benchmarks.fleet import Fleet
from benchmarks.pressure import pressure
from gateway.metrics import Metrics
from gateway.totals import Totals, _written
from tests.eventually import eventually, eventually_async

WORKERS = 2


def page(**values: float) -> str:
    lines = ["# TYPE a_total counter", f'a_total{{m="x"}} {values["a"]}', "# TYPE g gauge", f"g {values['g']}"]
    lines += ["# TYPE h histogram", f'h_bucket{{le="+Inf"}} {values["h"]}', f"h_count {values['h']}", "h_sum 0.5"]
    return "\n".join([*lines, "# TYPE market_gateway_ready_replicas gauge", "market_gateway_ready_replicas 2", ""])


def test_counters_gauges_and_histograms_add_up_and_what_all_see_does_not():
    text = _written([page(a=3, g=1, h=5), page(a=4, g=2, h=6)], {}).decode()
    for line in ('a_total{m="x"} 7.0', "g 3.0", 'h_bucket{le="+Inf"} 11.0', "h_count 11.0", "h_sum 1.0"):
        assert line in text.splitlines()
    assert "market_gateway_ready_replicas 2.0" in text.splitlines()


def test_a_dead_workers_counts_stay_in_the_sum():
    totals = Totals()
    totals._last = {"dead:1": page(a=3, g=1, h=5), "live:1": page(a=4, g=2, h=6)}
    totals.keep_counters("dead:1")
    text = _written([totals._last["live:1"]], totals._of_dead).decode()
    assert 'a_total{m="x"} 7.0' in text.splitlines()
    assert "g 2.0" in text.splitlines()


def test_a_dead_workers_counts_stay_where_no_other_has_any():
    totals = Totals()
    totals._last = {"dead:1": page(a=3, g=1, h=5)}
    totals.keep_counters("dead:1")
    alive = "# TYPE a_total counter\n# TYPE g gauge\n# TYPE h histogram\n"
    text = _written([alive], totals._of_dead).decode()
    for line in ('a_total{m="x"} 3.0', 'h_bucket{le="+Inf"} 5.0', "h_count 5.0", "h_sum 0.5"):
        assert line in text.splitlines()


def test_processes_add_up_but_for_their_ages_and_limits():
    def process(**values: float) -> str:
        kinds = {"cpu_seconds_total": "counter"}
        return "".join(
            f"# TYPE process_{name} {kinds.get(name, 'gauge')}\nprocess_{name} {value}\n"
            for name, value in values.items()
        )

    first = process(cpu_seconds_total=2.5, resident_memory_bytes=100, start_time_seconds=50, max_fds=1024, open_fds=3)
    second = process(cpu_seconds_total=1, resident_memory_bytes=200, start_time_seconds=40, max_fds=512, open_fds=4)
    assert samples(_written([first, second], {})) == {
        "process_cpu_seconds_total": 3.5,
        "process_resident_memory_bytes": 300,
        "process_start_time_seconds": 40,
        "process_max_fds": 512,
        "process_open_fds": 7,
    }


def test_a_real_workers_page_adds_up_to_twice_itself_where_it_should():
    metrics = Metrics()
    metrics.build.labels("1.2.3").set(1)
    metrics.in_flight_limit.set(100)
    metrics.known_replicas.set(2)
    metrics.requests.labels("Predict", "OK").inc(5)
    metrics.seconds.labels("Predict", "total").observe(0.3, {"trace_id": "a" * 32})
    page = generate_latest(metrics.registry).decode()
    found = samples(_written([page, page], {}))
    assert found['market_gateway_build_info{version="1.2.3"}'] == 1
    assert found["market_gateway_in_flight_limit_requests"] == 200
    assert found["market_gateway_known_replicas"] == 2
    assert found['market_gateway_requests_total{code="OK",method="Predict"}'] == 10
    assert found['market_gateway_request_phase_seconds_bucket{le="0.5",method="Predict",phase="total"}'] == 2
    assert not [name for name in found if name.startswith("python_") or "_created" in name]


@pytest.fixture(scope="module")
def replica(tmp_path_factory):
    """One replica, and a gateway with workers that every test replaces."""
    folder = tmp_path_factory.mktemp("workers")
    with Fleet(folder, replicas=1, gateway={"MARKET_GATEWAY_WORKERS": str(WORKERS)}) as fleet:
        yield fleet


@pytest.fixture
def fleet(replica):
    """A gateway of this test, with a log of its own."""
    if replica.gateway is not None:
        replica.gateway.kill()
    replica.start_gateway()
    return replica


@pytest.mark.slow
async def test_workers_share_the_port_and_a_killed_worker_is_replaced(fleet):
    children = workers(fleet)
    assert len(children) == WORKERS
    count = 0
    for _ in range(4 * WORKERS):  # a connection each, so that the kernel spreads them
        async with pressure(fleet.target, fleet.credentials) as load:
            async with load.callers(4) as tally:
                await load.more(10)
            assert not tally.lost
            count += tally.answered + 16
    eventually(lambda: fleet.metric("market_gateway_requests_total", code="OK"), lambda found: found >= count)
    assert fleet.metric("market_gateway_requests_total", code="OK") == count

    os.kill(children[0], signal.SIGKILL)
    await eventually_async(lambda: fleet.log().count('"event":"listening"') == 1 + WORKERS + 1, seconds=60)
    assert len(set(workers(fleet)) - set(children)) == 1
    assert fleet.metric("market_gateway_requests_total", code="OK") == count
    async with pressure(fleet.target, fleet.credentials) as load, load.callers(4) as tally:
        await load.more(10)
    gateway = fleet.gateway
    assert gateway is not None
    gateway.stop(30)
    assert gateway.returncode == 0
    events = [json.loads(line)["event"] for line in fleet.log().splitlines()]
    assert events.count("worker died") == 1
    assert events.count("stopped") == WORKERS


@pytest.mark.slow
def test_workers_end_with_a_killed_parent(fleet):
    assert fleet.gateway is not None
    children = [psutil.Process(pid) for pid in workers(fleet)]
    assert len(children) == WORKERS
    fleet.gateway.kill()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive


def samples(page: bytes) -> dict[str, float]:
    lines = (line.rpartition(" ") for line in page.decode().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def workers(fleet: Fleet) -> list[int]:
    assert fleet.gateway is not None
    pid = fleet.gateway.pid
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sorted(int(child) for task in tasks for child in (task / "children").read_text().split())
