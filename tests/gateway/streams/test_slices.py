"""Streams share the event loop's time; clients take turns."""

import asyncio
import itertools

import pytest

from gateway.streams.slices import MOST_TURNS, Slices
from market_inference.contract import deadline


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The instant, which work alone moves on: on a busy machine, a short slice may take long."""
    instant = [100.0]
    monkeypatch.setattr(deadline, "now", lambda: instant[0])
    return instant


async def work(clock: list[float], slices: Slices, client: str, seconds: float, log: list[str], times: int = 1) -> None:
    for _ in range(times):
        ends = await slices.begin(client)
        began = deadline.now()
        clock[0] += seconds
        log.append(client)
        slices.end(began)
        assert ends - began < 0.01


async def test_short_slices_do_not_wait(clock):
    slices, log = Slices(0.005), []
    task = asyncio.create_task(work(clock, slices, "a", 0.0, log, times=3))
    await asyncio.sleep(0)
    assert log == ["a", "a", "a"]
    await task


async def test_one_slice_runs_in_a_turn_and_clients_take_turns(clock):
    slices, log = Slices(0.0005), []
    tasks = [asyncio.create_task(work(clock, slices, "many", 0.001, log, times=2)) for _ in range(5)]
    await asyncio.sleep(0)
    assert log == ["many"]
    tasks.append(asyncio.create_task(work(clock, slices, "one", 0.001, log)))
    before = 0
    while "one" not in log:
        await asyncio.sleep(0)
        assert len(log) - before <= 1
        before = len(log)
    # One of the streams before may be granted the next slice already.
    assert log.index("one") <= 3
    await asyncio.gather(*tasks)
    assert log.count("many") == 10


async def test_later_turns_pay_for_a_slice_beyond_its_end(clock):
    # As with a message that is read in one piece, or calls that are sent together after the slice.
    slices, log = Slices(0.001), []
    tasks = [asyncio.create_task(work(clock, slices, "many", 0.0055, log, times=2)) for _ in range(3)]
    turns: list[int] = []
    for turn in range(100):
        await asyncio.sleep(0)
        turns += [turn] * (len(log) - len(turns))
    await asyncio.gather(*tasks)
    assert len(turns) == 6
    assert min(after - before for before, after in itertools.pairwise(turns)) >= 5


async def test_a_process_that_stood_still_delays_streams_by_some_turns_alone(clock):
    slices, log = Slices(0.001), []
    await work(clock, slices, "a", 60.0, log)
    task = asyncio.create_task(work(clock, slices, "a", 0.0, log))
    for _ in range(MOST_TURNS + 3):
        await asyncio.sleep(0)
    assert log == ["a", "a"]
    await task


async def test_a_cancelled_stream_passes_its_slice_on(clock):
    slices, log = Slices(0.0005), []
    first = asyncio.create_task(work(clock, slices, "a", 0.001, log))
    waiting = [asyncio.create_task(work(clock, slices, name, 0.001, log)) for name in ("b", "c")]
    await first
    waiting[0].cancel()
    await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 60)
    assert log == ["a", "c"]
    assert not slices._waiting


async def test_slices_are_shorter_while_several_clients_call(clock):
    company = False
    slices = Slices(8.0, company=lambda: company)

    async def granted() -> float:
        """The seconds of the first slice of the next turn."""
        slices.end(deadline.now())
        await asyncio.sleep(0)
        ends = await slices.begin("a")
        return ends - deadline.now()

    assert await granted() == 8.0
    company = True
    assert await granted() == 2.0
    company = False
    assert await granted() == 8.0


async def test_a_gateway_knows_whether_several_clients_call(start):
    async with start(1) as gateway:
        servicer, count = gateway.server.servicer, gateway.server.servicer._pipeline.in_flight
        assert not servicer._slices._company()
        with count.slot("a"), count.slot("a"):
            assert not servicer._slices._company()
            with count.slot("b"):
                assert servicer._slices._company()
        assert not servicer._slices._company()
