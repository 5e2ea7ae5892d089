"""No replica's death, restart or hang is felt by a caller: real processes, real signals, every answer checked."""

import asyncio

import pytest

from benchmarks.fleet import Fleet
from benchmarks.pressure import pressure
from tests.eventually import eventually, eventually_async

CALLERS = 16
TIMEOUT = 120.0
# Some hundred requests a second, beside which a replica can start.
PAUSE = 0.05
pytestmark = pytest.mark.slow


class LocalFleet(Fleet):
    """A fleet whose replicas listen on Unix sockets."""

    def _address(self, number: int) -> str:
        return f"unix:{self.folder}/{number}"


@pytest.fixture(scope="module", params=[Fleet, LocalFleet], ids=["grpc", "unix"])
def fleet(tmp_path_factory, request):
    settings = {"MARKET_GATEWAY_HEALTH_INTERVAL": "0.3", "MARKET_GATEWAY_HEALTH_TIMEOUT": "3.0"}
    with request.param(tmp_path_factory.mktemp("fleet"), gateway=settings) as fleet:
        yield fleet


async def ready(fleet: Fleet, replicas: int) -> None:
    await eventually_async(lambda: fleet.metric("market_gateway_ready_replicas"), lambda count: count == replicas, 100)


def assert_nobody_noticed(tally):
    assert not tally.refused
    assert not tally.lost
    assert tally.wrong == 0
    assert tally.sent == tally.answered > 0


async def test_kill_9_of_one_of_two_replicas_under_load_is_felt_by_nobody(fleet):
    await ready(fleet, 2)
    async with pressure(fleet.target, fleet.credentials, timeout=TIMEOUT, pause=PAUSE) as load:
        async with load.callers(CALLERS) as tally:
            await load.more(150)
            fleet.pause(0)  # so that a call is in flight when the replica dies
            await load.more(20)
            await asyncio.to_thread(fleet.kill, 0)
            await load.more(150)
            await asyncio.to_thread(fleet.restart, 0)
            await ready(fleet, 2)
            await load.more(150)
        assert_nobody_noticed(tally)
    eventually(lambda: fleet.metric("market_gateway_resends_total"))


async def test_a_rolling_restart_of_all_replicas_under_load_is_felt_by_nobody(fleet):
    await ready(fleet, 2)
    async with pressure(fleet.target, fleet.credentials, timeout=TIMEOUT, pause=PAUSE) as load:
        async with load.callers(CALLERS) as tally:
            for index in range(2):
                await load.more(100)
                assert await asyncio.to_thread(fleet.terminate, index) == 0
                await load.more(100)
                await asyncio.to_thread(fleet.restart, index)
                await ready(fleet, 2)
        assert_nobody_noticed(tally)


async def test_a_hung_replica_is_left_within_its_health_timeout_and_taken_back(fleet):
    await ready(fleet, 2)
    async with pressure(fleet.target, fleet.credentials, timeout=TIMEOUT, pause=PAUSE) as load:
        async with load.callers(CALLERS) as tally:
            await load.more(100)
            fleet.pause(0)
            try:
                await ready(fleet, 1)
                await load.more(100)
            finally:
                fleet.resume(0)
            await ready(fleet, 2)
            await load.more(100)
        assert_nobody_noticed(tally)
        # The health check finds the hang within 3.6 s (interval, jitter, timeout). Without the check, a request waits
        # for its whole time.
        assert max(duration for _, duration in tally.seconds) < TIMEOUT / 2
