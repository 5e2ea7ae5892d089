"""The explaining check takes a bounded share of the event loop, in turns between clients."""

import asyncio

import grpc
import pytest
from google.rpc import code_pb2

from gateway.calls import pipeline
from gateway.calls.slow_checks import MOST_EXPLAINED, SHARE, SLICE_SECONDS, Mistakes, SlowChecks
from market_inference.contract import deadline
from market_inference.contract.errors import InvalidRequestError
from market_inference.contract.generated import inference_pb2 as pb

EMPTY_SERIES = pb.PredictRequest(series=[pb.Series()] * 256)
GOOD = pb.PredictRequest(series=[pb.Series(values=[1.0, 2.0] * 20)], horizon=3)


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(deadline, "now", made)
    return made


class Delayed:
    """The timers of an event loop, which a test runs by hand."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.timers: list[tuple[float, object]] = []

    def call_later(self, delay, callback):
        self.timers.append((self.clock.time + delay, callback))
        return object()

    def next(self) -> None:
        at, callback = self.timers.pop(0)
        self.clock.time = at
        callback()


@pytest.fixture
def loop(clock, monkeypatch):
    made = Delayed(clock)
    monkeypatch.setattr("gateway.calls.slow_checks.get_running_loop", lambda: made)
    return made


def test_checks_run_in_slices_with_breaks_in_proportion(clock, loop):
    checks, ran = SlowChecks(), []

    def check(name: str) -> None:
        ran.append((name, clock.time))
        clock.time += 1.5 * SLICE_SECONDS

    for place in range(5):
        checks.add("attacker", lambda place=place: check(f"a{place}"))
    began = ran[0][1]
    assert len(ran) == 1
    while loop.timers:
        loop.next()
    assert [name for name, _ in ran] == ["a0", "a1", "a2", "a3", "a4"]
    busy, last = 5 * 1.5 * SLICE_SECONDS, 1.5 * SLICE_SECONDS
    # The last check has no break after it.
    assert ran[-1][1] + last - began == pytest.approx(busy / SHARE - last * (1 / SHARE - 1))


def test_clients_take_turns(clock, loop):
    checks, ran = SlowChecks(), []

    def check(name: str) -> None:
        ran.append(name)
        clock.time += 1.5 * SLICE_SECONDS

    for place in range(4):
        checks.add("attacker", lambda place=place: check(f"a{place}"))
    checks.add("victim", lambda: check("v"))
    while loop.timers:
        loop.next()
    assert ran == ["a0", "a1", "v", "a2", "a3"]


def test_the_first_check_after_a_pause_runs_at_once(clock, loop):
    checks, ran = SlowChecks(), []
    for _ in range(3):
        checks.add("desk", lambda: ran.append(clock.time))
        clock.time += 1.0
    assert len(ran) == 3
    assert not loop.timers


async def test_a_turn_is_awaited_and_raises_what_the_check_raises():
    checks, ran = SlowChecks(), []
    await checks.turn("desk", lambda: ran.append(1))
    assert ran == [1]

    def broken() -> None:
        raise InvalidRequestError([])

    with pytest.raises(InvalidRequestError):
        await checks.turn("desk", broken)


async def test_a_check_whose_caller_has_left_does_not_run(clock, loop, monkeypatch):
    checks, ran = SlowChecks(), []
    monkeypatch.setattr(loop, "create_future", asyncio.get_running_loop().create_future, raising=False)
    checks.add("desk", lambda: setattr(clock, "time", clock.time + SLICE_SECONDS))
    waiting = asyncio.ensure_future(checks.turn("desk", lambda: ran.append(1)))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    while loop.timers:
        loop.next()
    assert not ran


def test_a_check_that_adds_a_check_ends_first(clock, loop):
    """A stream reads on within a check, and finds further mistakes."""
    checks, ran = SlowChecks(), []

    def outer() -> None:
        checks.add("attacker", lambda: ran.append("inner"))
        ran.append("outer")
        clock.time += SLICE_SECONDS

    checks.add("attacker", outer)
    assert ran == ["outer"]
    loop.next()
    assert ran == ["outer", "inner"]
    assert not loop.timers


def test_further_mistakes_of_a_message_are_not_explained():
    mistakes = Mistakes(count=MOST_EXPLAINED - 1)
    mistakes.refuse_further()
    mistakes.count += 1
    with pytest.raises(InvalidRequestError, match="not checked: 16 other requests of the Stream message break a rule"):
        mistakes.refuse_further()


async def test_a_message_of_many_mistakes_explains_few_and_serves_its_valid_requests(start, monkeypatch):
    """B2: 1,024 requests of 256 empty series in one message."""
    explained = 0
    slowly = pipeline.check_slowly

    def counted(method, raw):
        nonlocal explained
        explained += 1
        return slowly(method, raw)

    monkeypatch.setattr(pipeline, "check_slowly", counted)
    items = [pb.StreamItem(id=1 + place, predict=EMPTY_SERIES) for place in range(1023)]
    items.append(pb.StreamItem(id=1024, predict=GOOD))
    async with start(1) as gateway:
        call = gateway.stub.Stream(metadata=gateway.metadata)
        await call.write(pb.StreamRequest(requests=items))
        victim = await gateway.predict()
        assert victim.request_id
        await call.done_writing()
        answers = {}
        async for message in call:
            answers.update({answer.id: answer for answer in message.answers})
    assert len(answers) == 1024
    assert answers[1024].HasField("predict")
    refused = [answer.error for id_, answer in answers.items() if id_ != 1024]
    assert {error.code for error in refused} == {code_pb2.INVALID_ARGUMENT}
    assert explained == MOST_EXPLAINED
    assert sum("not checked" in error.message for error in refused) == 1023 - MOST_EXPLAINED


async def test_a_valid_call_is_answered_while_the_mistakes_of_another_client_wait(start):
    """The slow checks of one client never stand in front of another client's calls."""
    async with start(1) as gateway:
        bad = [asyncio.ensure_future(gateway.predict(EMPTY_SERIES, timeout=250)) for _ in range(20)]
        await asyncio.wait(bad, return_when=asyncio.FIRST_COMPLETED)
        await gateway.predict()
        assert not all(call.done() for call in bad)
        failed = await asyncio.gather(*bad, return_exceptions=True)
    assert {error.code() for error in failed} == {grpc.StatusCode.INVALID_ARGUMENT}


async def test_checks_go_on_after_a_bug_in_one():
    def bug() -> None:
        raise KeyError

    checks, done = SlowChecks(), asyncio.Event()
    with pytest.raises(KeyError):
        checks.add("a", bug)
    checks.add("a", done.set)
    async with asyncio.timeout(60):
        await done.wait()


async def test_a_mistake_costs_its_client_units(start):
    async with start(1, units_per_second=1e-3, burst_seconds=300_000.0) as gateway:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await gateway.predict(EMPTY_SERIES)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as limited:
            await gateway.predict(EMPTY_SERIES)
        assert limited.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
