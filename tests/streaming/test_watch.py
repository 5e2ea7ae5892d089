"""Live sessions through real processes, by the client library."""

import asyncio
import os
import signal
import urllib.request

import grpc
import numpy as np
import pytest
import talib

import market_inference
from market_inference import errors
from market_inference.client.session import ForecastEvery
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.generated.inference_pb2_grpc import MarketInferenceServiceStub

HISTORY = 200
NAMES = ["RSI", "MACD", "BBANDS", "ATR", "SMA", "EMA", "STOCH", "OBV"]


def history(market, size=HISTORY):
    return {name: values[:size] for name, values in market.items()}


def bar(market, at):
    return {"time": at + 1, **{name: float(values[at]) for name, values in market.items()}}


def expected(market, last):
    """TA-Lib over the bars up to `last`."""
    upto = {name: values[: last + 1] for name, values in market.items()}
    high, low, close = upto["high"], upto["low"], upto["close"]
    macd, upper = talib.MACD(close), talib.BBANDS(close)
    return {
        "RSI": talib.RSI(close)[-1], "MACD.macd": macd[0][-1], "MACD.macdsignal": macd[1][-1],
        "BBANDS.upperband": upper[0][-1], "ATR": talib.ATR(high, low, close)[-1], "SMA": talib.SMA(close)[-1],
        "EMA": talib.EMA(close)[-1], "STOCH.slowk": talib.STOCH(high, low, close)[0][-1],
        "OBV": talib.OBV(close, upto["volume"])[-1],
    }  # fmt: skip


def assert_fresh(update, market, last):
    want = expected(market, last)
    np.testing.assert_allclose([update[name] for name in want], list(want.values()), rtol=1e-9)


def client_of(services):
    return market_inference.AsyncClient(services.gateway.target, api_key=services.gateway.key)


async def take(session, count):
    return [await anext(session) for _ in range(count)]


async def test_every_bar_is_answered_with_what_the_full_call_gives(standing, market):
    async with client_of(standing) as client, client.watch("X", history(market), indicators=NAMES) as session:
        for at in range(HISTORY, 1200):
            await session.append(bar(market, at))
            if at % 100 == 0:
                await session.correct({name: value * 1.01 for name, value in bar(market, at).items()})
                await session.correct(bar(market, at))
            if at % 100 == 0:
                await take(session, 2)
            (update,) = await take(session, 1)
            if at % 50 == 0:
                assert_fresh(update, market, at)
        assert update.sequence == session.sequence == 1000
        assert_fresh(update, market, 1199)


async def test_forecasts_come_at_every_nth_bar_and_are_those_of_a_call_of_their_own(standing, market):
    every = ForecastEvery(horizon=5, quantiles=[0.1, 0.5, 0.9], every=3)
    async with client_of(standing) as client:
        async with client.watch("X", history(market), forecast=every, keep=HISTORY) as session:
            for at in range(HISTORY, HISTORY + 7):
                await session.append(bar(market, at))
            updates = await take(session, 7)
        assert [update.forecast is not None for update in updates] == [False, False, True, False, False, True, False]
        closes = market["close"][6 : HISTORY + 6]
        alone = await client.predict(closes, 5, quantiles=[0.1, 0.5, 0.9])
    np.testing.assert_allclose(updates[5].forecast.quantiles, alone.quantiles, rtol=1e-9)
    assert updates[5].forecast.model == alone.model


async def test_bars_out_of_place_are_refused_one_by_one_and_the_session_goes_on(standing, market):
    async with client_of(standing) as client, client.watch("X", history(market), indicators=["RSI"]) as session:
        await session.append(bar(market, HISTORY))
        assert (await anext(session)).error is None
        refused = {
            "BAR_OUT_OF_ORDER": {"time": HISTORY},
            "BAR_DUPLICATE": {"time": HISTORY + 1},
            "BAR_FROM_FUTURE": {"time": HISTORY + 5, "as_of": HISTORY + 4},
        }
        for reason, place in refused.items():
            await session.append(bar(market, HISTORY + 1), **place)
            update = await anext(session)
            assert update.error.reason == reason
            with pytest.raises(errors.InvalidRequestError):
                update["RSI"]
        await session.append(bar(market, HISTORY + 1), as_of=HISTORY + 2)
        update = await anext(session)
        assert update.sequence == 2
        assert update["RSI"] == pytest.approx(talib.RSI(market["close"][: HISTORY + 2])[-1], rel=1e-9)


async def test_what_cannot_be_watched_is_refused_at_once(standing, market):
    async with client_of(standing) as client:
        with pytest.raises(errors.InvalidRequestError, match="unknown function"):
            async with client.watch("X", history(market), indicators=["RSY"]):
                pass
        with pytest.raises(errors.InvalidRequestError, match=r"history\.high"):
            async with client.watch("X", market["close"], indicators=["ATR"]):
                pass
        with pytest.raises(errors.NotFoundError):
            async with client.watch("X", market["close"], forecast=ForecastEvery(3, model="oracle")):
                pass


async def test_a_session_without_bars_ends_with_its_reason(standing, market):
    async with client_of(standing) as client, client.watch("X", market["close"], indicators=["RSI"]) as session:
        with pytest.raises(errors.DeadlineExceededError) as caught:
            await anext(session)
    assert caught.value.reason == "SESSION_IDLE"


async def test_a_client_has_only_so_many_sessions(standing, market):
    async with client_of(standing) as client:
        sessions = [client.watch(str(at), market["close"], indicators=["SMA"]) for at in range(21)]
        await asyncio.gather(*(session.__aenter__() for session in sessions[:20]))
        with pytest.raises(errors.OverloadedError, match="sessions"):
            await sessions[20].__aenter__()
        await asyncio.gather(*(session.close() for session in sessions))


async def test_a_slow_reader_of_the_latest_gets_the_newest_and_costs_nobody_else(standing, market):
    metadata = (("authorization", f"Bearer {standing.gateway.key}"),)
    async with grpc.aio.insecure_channel(standing.gateway.target) as channel:
        stub = MarketInferenceServiceStub(channel)
        slow = stub.Watch(metadata=metadata)
        opened = pb.WatchOpen(
            history=pb.Panel(close=market["close"][:50]),
            indicators=[pb.IndicatorSpec(name="SMA")] * 100,
            delivery=pb.WATCH_DELIVERY_LATEST,
        )
        await slow.write(pb.WatchRequest(open=opened))
        await slow.read()
        count = 3000
        for at in range(1, count + 1):
            await slow.write(pb.WatchRequest(bar=pb.WatchBar(sequence=at, bar=pb.Bar(time=at, close=100.0 + at))))
        async with client_of(standing) as client, client.watch("Y", history(market), indicators=NAMES) as session:
            await session.append(bar(market, HISTORY))
            assert_fresh(await anext(session), market, HISTORY)
        answers = 0
        response = pb.WatchResponse()
        while response.sequence < count:
            response = await slow.read()
            answers += 1
        assert response.taken == count
        assert answers < count
        slow.cancel()


def test_the_synchronous_form_does_the_same(standing, market):
    with (
        market_inference.Client(standing.gateway.target, api_key=standing.gateway.key) as client,
        client.watch("X", history(market), indicators=NAMES) as session,
    ):
        for at in range(HISTORY, HISTORY + 300):
            session.append(bar(market, at))
        updates = list(session)
    assert [update.sequence for update in updates] == list(range(1, 301))
    assert_fresh(updates[-1], market, HISTORY + 299)


async def replay(session, market, upto, at_half):
    """Append every bar, read every answer, and do `at_half` half way; the updates."""
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


@pytest.mark.slow
@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "drained"])
async def test_a_session_survives_its_replica_without_gap_or_duplicate(services, market, with_signal):
    replicas = [services.start_replica(), services.start_replica()]
    services.start_gateway(replicas)
    services.wait_loaded("indicators")

    def kill():
        busy = next(replica for replica in replicas if _sessions(replica))
        os.kill(busy.service.pid, with_signal)

    async with (
        client_of(services) as client,
        client.watch("X", history(market), indicators=NAMES, keep=1200) as session,
    ):
        updates = await replay(session, market, 1000, kill)
    assert session.reconnects >= 1
    assert_without_gap(updates, market, 1000)


@pytest.mark.slow
async def test_a_session_survives_the_kill_of_its_gateway_without_gap_or_duplicate(services, market):
    replica = services.start_replica()
    first = services.start_gateway([replica])
    services.wait_loaded("indicators")

    def restart():
        os.kill(first.service.pid, signal.SIGKILL)
        first.service.failure()  # waits for its end
        services.start_gateway([replica], listen=first.target)

    async with (
        client_of(services) as client,
        client.watch("X", history(market), indicators=NAMES, keep=1200) as session,
    ):
        updates = await replay(session, market, 1000, restart)
    assert session.reconnects >= 1
    assert_without_gap(updates, market, 1000)


def _sessions(replica) -> bool:
    with urllib.request.urlopen(f"http://{replica.metrics}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    lines = (line.split() for line in text.splitlines())
    return any(line[0] == "market_inference_sessions" and float(line[1]) > 0 for line in lines)
