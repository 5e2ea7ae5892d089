"""Streams and live sessions of the client library survive the end of a replica and of the gateway."""

import asyncio
import os
import signal
import urllib.request

import pytest

import market_inference
from benchmarks.ports import HeldPort
from tests.eventually import eventually
from tests.pair.bars import HISTORY, NAMES, assert_fresh, bar, history

pytestmark = pytest.mark.slow
# One light forecaster and no texts: a replica starts faster.
LIGHT = {"forecast_models": "vol_rw", "sentiment_models": ""}


def client_of(gateway):
    return market_inference.AsyncClient(gateway.target, api_key=gateway.key)


@pytest.fixture
def port():
    """The port of a gateway that ends and starts again."""
    with HeldPort() as port:
        yield port


def restart_gateway(services, replica):
    """Kill the gateway and start another gateway at the same address."""
    killed = services.gateway
    os.kill(killed.service.pid, signal.SIGKILL)
    killed.service.failure()  # waits for the end of the process
    services.start_gateway([replica], listen=killed.target)


async def test_calls_in_flight_at_a_kill_of_the_gateway_are_sent_again(services, port, market):
    replica = services.start_replica(**LIGHT)
    first = services.start_gateway([replica], listen=port.address)
    services.wait_loaded("indicators")
    retries = market_inference.Retries(attempts=100)
    async with (
        market_inference.AsyncClient(first.target, api_key=first.key, retries=retries) as client,
        client.stream() as stream,
    ):
        futures = [stream.indicators(market["close"], ["RSI"], last=1) for _ in range(3000)]
        await futures[0]
        await asyncio.to_thread(restart_gateway, services, replica)
        found = await asyncio.wait_for(asyncio.gather(*futures), 60)
    assert len({float(one["RSI"][0]) for one in found}) == 1


async def replay(session, market, upto, at_half):
    """Append every bar, call `at_half` half way, and return every update."""
    updates = []

    async def read():
        async for update in session:
            updates.append(update)

    reader = asyncio.create_task(read())
    for at in range(HISTORY, upto):
        await session.append(bar(market, at))
        if at == (HISTORY + upto) // 2:
            await asyncio.to_thread(at_half)
    await session.finish()
    await asyncio.wait_for(reader, 60)
    return updates


def assert_without_gap(updates, market, upto):
    assert [update.sequence for update in updates] == list(range(1, upto - HISTORY + 1))
    assert all(update.error is None for update in updates)
    for at in range(HISTORY, upto, 20):
        assert_fresh(updates[at - HISTORY], market, at)
    assert_fresh(updates[-1], market, upto - 1)


@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "drained"])
async def test_a_session_survives_the_end_of_its_replica_without_gap_or_duplicate(services, market, with_signal):
    replicas = [services.start_replica(**LIGHT), services.start_replica(**LIGHT)]
    services.start_gateway(replicas)
    services.wait_loaded("indicators")

    def kill():
        busy = next(replica for replica in replicas if _sessions(replica))
        os.kill(busy.service.pid, with_signal)

    async with (
        client_of(services.gateway) as client,
        client.watch("X", history(market), indicators=NAMES, keep=1200) as session,
    ):
        updates = await replay(session, market, 1000, kill)
    assert session.reconnects >= 1
    assert_without_gap(updates, market, 1000)


async def test_a_session_survives_the_kill_of_its_gateway_without_gap_or_duplicate(services, port, market):
    replica = services.start_replica(**LIGHT)
    services.start_gateway([replica], listen=port.address)
    services.wait_loaded("indicators")
    async with (
        client_of(services.gateway) as client,
        client.watch("X", history(market), indicators=NAMES, keep=1200) as session,
    ):
        updates = await replay(session, market, 1000, lambda: restart_gateway(services, replica))
    assert session.reconnects >= 1
    assert_without_gap(updates, market, 1000)


def _sessions(replica) -> bool:
    with urllib.request.urlopen(f"http://{replica.metrics}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    lines = (line.split() for line in text.splitlines())
    return any(line[0] == "market_inference_sessions" and float(line[1]) > 0 for line in lines)


def gauge(replica, name):
    """A gauge of the replica, from /metrics."""
    with urllib.request.urlopen(f"http://{replica.metrics}/metrics", timeout=60) as page:
        lines = page.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


async def test_sessions_of_a_gateway_that_stands_still_end_on_the_replica(services, market):
    replica = services.start_replica(**LIGHT)
    gateway = services.start_gateway([replica])
    services.wait_loaded("indicators")
    async with client_of(gateway) as client, client.watch("X", history(market), indicators=["SMA"]):
        await asyncio.to_thread(eventually, lambda: gauge(replica, "market_inference_sessions") == 1)
        os.kill(gateway.service.pid, signal.SIGSTOP)
        try:
            # Nothing closes the connection: the replica's keepalive pings stay unanswered.
            await asyncio.to_thread(eventually, lambda: gauge(replica, "market_inference_sessions") == 0)
            await asyncio.to_thread(eventually, lambda: gauge(replica, "market_inference_session_bytes") == 0)
        finally:
            os.kill(gateway.service.pid, signal.SIGCONT)
