"""Clients that reset most of their calls are slowed down, and no other client is."""

import asyncio
from collections import Counter

import pytest

from gateway.transport import resets
from gateway.transport.resets import Resets
from market_inference.contract import deadline, keys
from tests.eventually import eventually_async
from tests.gateway.conftest import reply
from tests.gateway.test_hostile import frame, headers
from tests.gateway.transport.test_grpcio import HEADERS, RESET, SETTINGS, Connection

CANCEL = (8).to_bytes(4, "big")
MOST = 10


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """A few resets are many. A call of a slow client begins in hours, and a window is longer than the test."""
    monkeypatch.setattr(resets, "MOST_RESETS", MOST)
    monkeypatch.setattr(resets, "PACE_SECONDS", 1e5)
    monkeypatch.setattr(resets, "WINDOW_SECONDS", 1e5)


@pytest.fixture
def clock(monkeypatch):
    instant = [100.0]
    monkeypatch.setattr(deadline, "now", lambda: instant[0])
    return instant


def end(counts: Resets, client: str, *, reset: int = 0, answered: int = 0) -> None:
    for number in range(reset + answered):
        counts.ended(client, reset=number < reset)


async def test_a_client_with_many_resets_waits_and_others_do_not(clock, caplog):
    counts = Resets()
    end(counts, "flood", reset=MOST)
    assert counts.turn("flood") is None
    end(counts, "flood", reset=2)
    assert counts.turn("flood") is not None
    assert counts.turn("other") is None
    (record,) = (record for record in caplog.records if record.name == resets.__name__)
    assert record.fields == {"client": "flood", "calls": MOST + 1, "resets": MOST + 1}
    counts.close()


async def test_a_client_that_hedges_every_call_never_waits(clock):
    counts = Resets()
    for _ in range(10 * MOST):
        end(counts, "hedge", answered=1)
        end(counts, "hedge", reset=1)
        assert counts.turn("hedge") is None


async def test_resets_of_different_windows_are_not_added_up(clock):
    counts = Resets()
    for _ in range(5):
        end(counts, "now and then", reset=MOST)
        assert counts.turn("now and then") is None
        clock[0] += resets.WINDOW_SECONDS


async def test_a_client_is_slow_until_a_window_without_a_majority_of_resets(clock):
    counts = Resets()
    end(counts, "mends", reset=MOST + 1)
    clock[0] += resets.WINDOW_SECONDS
    end(counts, "mends", reset=2, answered=1)  # few, but most of its calls
    clock[0] += resets.WINDOW_SECONDS
    end(counts, "mends", reset=1, answered=1)
    assert counts.turn("mends") is not None
    clock[0] += resets.WINDOW_SECONDS
    assert counts.turn("mends") is None
    counts.close()


async def test_slow_clients_take_turns(clock, monkeypatch):
    monkeypatch.setattr(resets, "PACE_SECONDS", 0.0)
    counts, begun = Resets(), []

    async def call(client: str) -> None:
        turn = counts.turn(client)
        assert turn is not None
        await turn
        begun.append(client)

    for client in ("a", "b"):
        end(counts, client, reset=MOST + 1)
    await asyncio.gather(*(call(client) for client in "aaab"))
    assert begun == ["a", "b", "a", "a"]


async def test_a_reset_call_keeps_its_place_until_its_turn(clock):
    counts = Resets()
    end(counts, "flood", reset=MOST + 1)
    turn = counts.turn("flood")
    assert turn is not None
    assert not turn.cancel()
    assert not turn.done()
    counts.close()
    await turn
    assert counts.turn("flood") is None


async def test_more_calls_than_may_wait_begin_at_once(clock, monkeypatch):
    monkeypatch.setattr(resets, "MOST_WAITING", 3)
    counts = Resets()
    end(counts, "flood", reset=MOST + 1)
    assert [counts.turn("flood") is None for _ in range(5)] == [False] * 3 + [True] * 2
    counts.close()


def flood(key: str, method: str, streams: range) -> bytes:
    """Calls that are opened and reset at once."""
    fields = {"_method": "POST", "_scheme": "http", "_path": f"/market.inference.v1.MarketInferenceService/{method}"}
    fields |= {"_authority": "x", "te": "trailers", "content-type": "application/grpc", "x-api-key": key}
    block = headers(**fields)
    return b"".join(frame(HEADERS, 4, stream, block) + frame(RESET, 0, stream, CANCEL) for stream in streams)


@pytest.mark.parametrize("method", ["Predict", "Stream", "Watch"])
async def test_calls_that_a_client_resets_wait_and_the_calls_of_others_do_not(start, tmp_path, method):
    async with start(1, transport="grpcio") as gateway:
        server = gateway.server
        other, key = keys.issue("other")
        with keys.edit(tmp_path / "keys.json") as stored:
            stored.append(key)
        await server._security._keys.look()
        begun: Counter[str] = Counter()
        begin = server.servicer._call
        server.servicer._call = lambda *given: begun.update([given[1].client.name]) or begin(*given)
        async with Connection(server.address) as connection:
            await connection.until(lambda: connection.frames[SETTINGS])
            connection.send(frame(SETTINGS, 1, 0))  # before this, gRPC takes a hundred calls in all
            for wave in range(50):
                connection.send(flood(gateway.secret, method, range(100 * wave + 1, 100 * wave + 101, 2)))
                await gateway.predict(metadata=(("x-api-key", other),))
            await eventually_async(lambda: server._transport._resets._waiting >= MOST)
            slow = begun["desk"]
            assert slow < 25 * MOST
            for wave in range(50, 60):
                connection.send(flood(gateway.secret, method, range(100 * wave + 1, 100 * wave + 101, 2)))
                await gateway.predict(metadata=(("x-api-key", other),))
            assert begun == {"desk": slow, "other": 60}


async def test_a_client_that_cancels_half_of_its_calls_at_once_is_served_as_before(start):
    many = 2 * MOST
    async with start(1, transport="grpcio") as gateway:
        slow, replica = gateway.server._transport._resets, gateway.replicas[0]
        for _ in range(many):
            await gateway.predict()
        replica.behave = lambda envelope: None
        calls = [gateway.predict() for _ in range(many)]
        await eventually_async(lambda: replica.asked == 2 * many)
        for call in calls:
            call.cancel()
        await eventually_async(lambda: slow._counts["desk"] == (2 * many, many))
        assert slow.turn("desk") is None
        replica.behave = reply
        await gateway.predict()


async def test_calls_that_are_reset_because_they_waited_do_not_keep_a_client_slow(start, monkeypatch):
    async with start(1, transport="grpcio") as gateway:
        slow = gateway.server._transport._resets
        end(slow, "desk", reset=MOST + 1)
        calls = [gateway.predict() for _ in range(2 * MOST)]
        await eventually_async(lambda: slow._waiting == 2 * MOST)
        for call in calls:
            call.cancel()
        slow._window_ends = 0.0
        monkeypatch.setattr(resets, "PACE_SECONDS", 0.0)
        slow._timer.cancel()
        slow._next()
        await gateway.predict()  # waits: the window before had the resets
        assert slow._counts == {}
        slow._window_ends = 0.0
        await gateway.predict()
        assert slow._counts == {"desk": (1, 0)}
