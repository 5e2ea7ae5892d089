"""The calls of one client at a replica: a limit beside other clients, and none for a client alone or for long calls."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from gateway.replicas import router, window
from gateway.replicas.replica import Replica
from gateway.replicas.window import LONG_SECONDS, MOST_CALLS, Window
from market_inference.contract import keys
from market_inference.contract.generated import exchange_pb2
from runtime import company
from tests.eventually import eventually_async
from tests.gateway.conftest import reply

ONE, OTHER = ("one", 0), ("other", 0)


@dataclass(eq=False)
class Asked:
    key: tuple[str, int]
    calls: int
    expected_seconds: float


class Sent:
    """A window, and the numbers of the requests that were sent."""

    def __init__(self) -> None:
        self.window = Window()
        self.numbers: list[int] = []
        self._asked: dict[int, Asked] = {}

    def add(self, key: tuple[str, int], number: int, calls: int = 1, seconds: float = 0.0) -> None:
        asked = self._asked[number] = Asked(key, calls, seconds)
        self.window.add(asked, lambda: self.numbers.append(number))

    def remove(self, number: int) -> None:
        self.window.remove(self._asked[number])


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
def beside(sent: Sent) -> Sent:
    """A window to which another client has just sent a request, number 0."""
    sent.add(ONE, -1)
    sent.add(OTHER, 0)
    sent.remove(-1)
    sent.numbers.clear()
    return sent


def test_a_client_alone_has_no_limit(sent: Sent):
    for number in range(3 * MOST_CALLS):
        sent.add(ONE, number)
    assert len(sent.numbers) == 3 * MOST_CALLS


def test_beside_another_client_requests_wait_and_leave_in_order(beside: Sent):
    for number in range(1, MOST_CALLS + 4):
        beside.add(ONE, number)
    assert beside.numbers == list(range(1, MOST_CALLS + 1))
    beside.add(OTHER, 1000)
    assert beside.numbers[-1] == 1000
    beside.remove(7)
    assert beside.numbers[-1] == MOST_CALLS + 1
    beside.remove(MOST_CALLS + 2)  # abandoned while it waits
    beside.remove(8)
    assert beside.numbers[-1] == MOST_CALLS + 3


def test_a_client_whose_calls_are_under_way_is_company_though_it_sends_nothing_more(beside: Sent, monkeypatch):
    clock = window.now()
    monkeypatch.setattr(window, "now", lambda: clock)
    for number in range(1, MOST_CALLS + 4):
        beside.add(ONE, number)
    for number in range(1001, 1004):
        clock += 0.9 * company.SECONDS
        beside.add(OTHER, number)
    beside.numbers.clear()
    beside.remove(1)
    assert beside.numbers == [MOST_CALLS + 1]
    clock += 1.1 * company.SECONDS
    beside.remove(2)
    assert beside.numbers == [MOST_CALLS + 1, MOST_CALLS + 2, MOST_CALLS + 3]


def test_a_merged_request_counts_with_its_calls(beside: Sent):
    for number in range(1, 4):
        beside.add(ONE, number, calls=MOST_CALLS // 2)
    assert beside.numbers == [1, 2]


def test_long_calls_do_not_wait(beside: Sent):
    for number in range(1, 2 * MOST_CALLS):
        beside.add(ONE, number, seconds=2 * LONG_SECONDS / MOST_CALLS)
    assert len(beside.numbers) == 2 * MOST_CALLS - 1


def test_each_priority_of_a_client_has_a_limit_of_its_own(beside: Sent):
    for number in range(1, 2 * MOST_CALLS):
        beside.add(ONE, number)
    beside.add(("one", 1), 1000)
    assert beside.numbers[-1] == 1000


def test_once_the_other_client_is_gone_all_that_waits_leaves(beside: Sent, monkeypatch: pytest.MonkeyPatch):
    for number in range(1, 3 * MOST_CALLS):
        beside.add(ONE, number)
    monkeypatch.setattr(window, "now", lambda: float("inf"))
    beside.remove(1)
    assert sorted(beside.numbers) == list(range(1, 3 * MOST_CALLS))


def test_a_window_without_requests_holds_nothing(beside: Sent):
    for number in range(1, 3 * MOST_CALLS):
        beside.add(ONE, number, seconds=0.001)
    for number in range(1, 3 * MOST_CALLS):
        beside.remove(number)
    beside.remove(0)
    assert not beside.window._sent
    assert not beside.window._waiting


async def metadata_of_crowd(gateway: Any, folder: Path) -> tuple[tuple[str, str], ...]:
    """The metadata of a second client, with a key that the gateway knows from now on."""
    secret, key = keys.issue("crowd")
    with keys.edit(folder / "keys.json") as stored:
        stored.append(key)
    await gateway.server._security._keys.look()
    return (("x-api-key", secret),)


async def test_another_clients_call_passes_a_crowd(start, tmp_path, monkeypatch):
    monkeypatch.setattr(company, "SECONDS", 1e9)
    async with start(1) as gateway:
        (replica,) = gateway.replicas
        crowd = await metadata_of_crowd(gateway, tmp_path)
        came: list[str] = []

        def behave(envelope: exchange_pb2.Envelope) -> exchange_pb2.Reply | None:
            came.append(envelope.client)
            return reply(envelope) if envelope.client == "desk" else None

        replica.behave = behave
        await gateway.predict()
        calls = [gateway.predict(metadata=crowd) for _ in range(MOST_CALLS + 20)]
        await eventually_async(lambda: gateway.server.servicer.in_flight == len(calls))
        await gateway.predict()
        assert (came.count("crowd"), came.count("desk")) == (MOST_CALLS, 2)
        for call in calls:
            call.cancel()
        await eventually_async(lambda: not gateway.server.servicer.in_flight)
        await eventually_async(lambda: len(replica.withdrawn) >= MOST_CALLS)
        stream = next(iter(gateway.server.router.replicas[0]._streams))
        assert not stream._window._waiting


async def test_a_call_that_was_never_sent_is_no_failure_of_the_replica(start, tmp_path, monkeypatch):
    monkeypatch.setattr(company, "SECONDS", 1e9)
    monkeypatch.setattr(router, "SILENCE_SECONDS", 0.0)
    failed: list[Replica] = []
    monkeypatch.setattr(Replica, "failed", lambda self: failed.append(self))
    async with start(1) as gateway:
        (replica,) = gateway.replicas
        crowd = await metadata_of_crowd(gateway, tmp_path)
        replica.behave = lambda envelope: reply(envelope) if envelope.client == "desk" else None
        await gateway.predict()
        calls = [gateway.predict(metadata=crowd) for _ in range(MOST_CALLS + 20)]
        await eventually_async(lambda: gateway.server.servicer.in_flight == len(calls))
        (stream,) = gateway.server.router.replicas[0]._streams
        # The newest first, which wait.
        for pending in reversed(list(stream.pending.values())):
            pending.expire()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert {answer.code() for answer in answers} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        assert len(failed) == MOST_CALLS
