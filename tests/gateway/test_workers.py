"""Several gateway workers on one port: a killed worker is replaced, counters survive, all workers end together."""

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from benchmarks.fleet import Fleet
from benchmarks.pressure import pressure
from tests.eventually import eventually, eventually_async

WORKERS = 2


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
    await eventually_async(lambda: fleet.metric("market_gateway_requests_total", code="OK") == count)
    async with pressure(fleet.target, fleet.credentials) as load, load.callers(4) as tally:
        await load.more(10)
    gateway = fleet.gateway
    assert gateway is not None
    gateway.stop(60)
    assert gateway.returncode == 0
    events = [json.loads(line)["event"] for line in fleet.log().splitlines()]
    assert events.count("worker died") == 1
    assert events.count("stopped") == WORKERS


@pytest.mark.slow
async def test_a_stopped_worker_is_replaced_and_keeps_no_share_of_new_connections(fleet):
    fleet.gateway.kill()
    fleet.start_gateway(MARKET_GATEWAY_WORKER_SECONDS="5")
    children = workers(fleet)
    # A worker is ready before its line is written.
    await eventually_async(lambda: fleet.log().count('"event":"listening"') == 1 + WORKERS, seconds=60)
    os.kill(children[0], signal.SIGSTOP)
    await eventually_async(lambda: children[0] not in workers(fleet) and len(workers(fleet)) == WORKERS, seconds=60)
    await eventually_async(lambda: fleet.log().count('"event":"listening"') >= 1 + WORKERS + 1, seconds=60)
    lines = [json.loads(line) for line in fleet.log().splitlines()]
    # On a busy machine, a worker that runs may be silent for as long.
    assert [line.get("pid") for line in lines if line["event"] == "worker does not answer"].count(children[0]) == 1
    for _ in range(4 * WORKERS):  # a connection each, so that the kernel spreads them
        async with pressure(fleet.target, fleet.credentials) as load, load.callers(1) as tally:
            await load.more(2)
        assert not tally.lost


@pytest.mark.slow
def test_workers_end_with_a_killed_parent(fleet):
    children = [psutil.Process(pid) for pid in workers(fleet)]
    assert len(children) == WORKERS
    fleet.gateway.kill()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive


def workers(fleet: Fleet) -> list[int]:
    pid = fleet.gateway.pid
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sorted(int(child) for task in tasks for child in (task / "children").read_text().split())
