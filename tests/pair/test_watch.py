"""Live sessions of the client library."""

import asyncio
from contextlib import AsyncExitStack, ExitStack

import grpc
import numpy as np
import pytest
import talib

import market_inference
from gateway.transport.interface import LIMITS
from market_inference import errors
from market_inference.client.session import ForecastEvery
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.generated.inference_pb2_grpc import MarketInferenceServiceStub
from tests.eventually import eventually_async
from tests.pair.bars import HISTORY, NAMES, assert_fresh, bar, history

MANY = LIMITS["max_concurrent_streams"] + 10


def client_of(service):
    return market_inference.AsyncClient(service.target, api_key=service.key)


async def take(session, count):
    return [await anext(session) for _ in range(count)]


async def test_the_update_of_every_bar_equals_the_full_call(running, market):
    async with client_of(running) as client, client.watch("X", history(market), indicators=NAMES) as session:
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


async def test_forecasts_come_at_every_nth_bar_and_equal_those_of_a_separate_call(running, market):
    every = ForecastEvery(horizon=5, quantiles=[0.1, 0.5, 0.9], every=3)
    async with client_of(running) as client:
        async with client.watch("X", history(market), forecast=every, keep=HISTORY) as session:
            for at in range(HISTORY, HISTORY + 7):
                await session.append(bar(market, at))
            updates = await take(session, 7)
        assert [update.forecast is not None for update in updates] == [False, False, True, False, False, True, False]
        closes = market["close"][6 : HISTORY + 6]
        alone = await client.predict(closes, 5, quantiles=[0.1, 0.5, 0.9])
    np.testing.assert_allclose(updates[5].forecast.quantiles, alone.quantiles, rtol=1e-9)
    assert updates[5].forecast.model == alone.model


async def test_a_bar_out_of_order_is_refused_alone_and_the_session_goes_on(running, market):
    async with client_of(running) as client, client.watch("X", history(market), indicators=["RSI"]) as session:
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


async def test_a_session_that_cannot_be_served_is_refused_at_its_start(running, market):
    async with client_of(running) as client:
        with pytest.raises(errors.InvalidRequestError, match="unknown function"):
            async with client.watch("X", history(market), indicators=["RSY"]):
                pass
        with pytest.raises(errors.InvalidRequestError, match=r"history\.high"):
            async with client.watch("X", market["close"], indicators=["ATR"]):
                pass
        with pytest.raises(errors.NotFoundError):
            async with client.watch("X", market["close"], forecast=ForecastEvery(3, model="oracle")):
                pass


async def test_a_session_without_bars_ends_with_its_reason(running, services, market):
    gateway = services.start_gateway([running.replica], session_idle_seconds=0.5)
    async with client_of(gateway) as client, client.watch("X", market["close"], indicators=["RSI"]) as session:
        with pytest.raises(errors.DeadlineExceededError) as caught:
            await anext(session)
    assert caught.value.reason == "SESSION_IDLE"


async def test_a_client_has_a_limited_number_of_sessions(running, services, market):
    gateway = services.start_gateway([running.replica], max_sessions_per_client=5)
    async with client_of(gateway) as client:
        sessions = [client.watch(str(at), market["close"], indicators=["SMA"]) for at in range(6)]
        await asyncio.gather(*(session.__aenter__() for session in sessions[:5]))
        with pytest.raises(errors.OverloadedError, match="sessions"):
            await sessions[5].__aenter__()
        await asyncio.gather(*(session.close() for session in sessions))


async def test_a_slow_reader_with_delivery_latest_gets_the_newest_update_and_delays_no_other_session(running, market):
    metadata = (("authorization", f"Bearer {running.key}"),)
    async with grpc.aio.insecure_channel(running.target) as channel:
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
        async with client_of(running) as client, client.watch("Y", history(market), indicators=NAMES) as session:
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


@pytest.mark.parametrize(("bars", "kept"), [(100, [20]), (2, [10, 20])], ids=["forecasts", "failures"])
async def test_a_reader_of_the_latest_gets_the_newest_forecast_and_every_failure(running, market, bars, kept):
    async with client_of(running) as client:
        every = ForecastEvery(horizon=2, every=10)
        async with client.watch("X", market["close"][:bars], forecast=every, delivery="latest", keep=bars) as session:
            for at in range(bars, bars + 25):
                await session.append(market["close"][at])
            await eventually_async(lambda: session.sequence, lambda sequence: sequence == 25)
            await session.finish()
            updates = [update async for update in session]
    assert [update.sequence for update in updates if update.error or update.forecast] == kept
    assert updates[-1].sequence == 25


def test_the_synchronous_session_gives_the_same_updates(running, market):
    with (
        market_inference.Client(running.target, api_key=running.key) as client,
        client.watch("X", history(market), indicators=NAMES) as session,
    ):
        for at in range(HISTORY, HISTORY + 300):
            session.append(bar(market, at))
        updates = list(session)
    assert [update.sequence for update in updates] == list(range(1, 301))
    assert_fresh(updates[-1], market, HISTORY + 299)


async def test_sessions_beyond_one_connection_leave_room_for_calls(running, market):
    """A gateway takes 100 calls on a connection, and gRPC lets the 101st wait until one of them ends."""
    closes = market["close"][:60]
    async with client_of(running) as client, AsyncExitStack() as stack, asyncio.timeout(120):
        for _ in range(MANY):
            session = await stack.enter_async_context(client.watch("X", closes))
        await session.append(101.0)
        assert (await anext(session)).sequence == 1
        assert (await client.predict(closes, 3)).horizon == 3


def test_synchronous_sessions_beyond_one_connection_leave_room_for_calls(running, market):
    closes = market["close"][:60]
    with market_inference.Client(running.target, api_key=running.key) as client, ExitStack() as stack:
        sessions = [stack.enter_context(client.watch("X", closes)) for _ in range(MANY)]
        sessions[-1].append(101.0)
        assert next(sessions[-1]).sequence == 1
        assert client.predict(closes, 3).horizon == 3
