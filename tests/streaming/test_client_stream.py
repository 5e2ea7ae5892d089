"""Many calls on one stream, by the client library, through real processes."""

import asyncio
import os
import signal

import numpy as np
import pytest

import market_inference
from market_inference import errors


def client_of(services):
    return market_inference.AsyncClient(services.gateway.target, api_key=services.gateway.key)


async def test_answers_are_those_of_calls_of_their_own(standing, market):
    async with client_of(standing) as client, client.stream() as stream:
        futures = {stream.indicators(market["close"][: 40 + at], ["RSI"], last=1): 40 + at for at in range(300)}
        seen = 0
        async for future in stream.as_completed(futures):
            seen += 1
            if seen % 50 == 0:
                alone = await client.indicators(market["close"][: futures[future]], ["RSI"], last=1)
                np.testing.assert_array_equal(future.result()["RSI"], alone["RSI"])
        assert seen == 300
        forecast = await stream.predict(market["close"], 3, quantiles=[0.5])
        alone = await client.predict(market["close"], 3, quantiles=[0.5])
        np.testing.assert_array_equal(forecast.quantiles, alone.quantiles)


async def test_a_call_that_fails_leaves_the_others_their_answers(standing, market):
    async with client_of(standing) as client, client.stream() as stream:
        good, unknown, short = (
            stream.predict(market["close"], 3),
            stream.predict(market["close"], 3, model="oracle"),
            stream.predict([1.0, 2.0], 3),
        )
        assert (await good).horizon == 3
        with pytest.raises(errors.NotFoundError):
            await unknown
        with pytest.raises(errors.InvalidRequestError):
            await short


async def test_a_cancelled_future_withdraws_its_call(standing, market):
    async with client_of(standing) as client, client.stream() as stream:
        first = await stream.predict(market["close"], 3)
        withdrawn = stream.predict(market["close"], 3)
        withdrawn.cancel()
        later = await stream.predict(market["close"], 3)
        np.testing.assert_array_equal(first.point, later.point)
        assert withdrawn.cancelled()


async def test_more_calls_than_credits_wait_their_turn(standing, market):
    async with client_of(standing) as client, client.stream() as stream:
        futures = [stream.indicators(market["close"][:40], ["SMA"], last=1) for _ in range(3000)]
        found = await asyncio.gather(*futures)
    assert len({float(one["SMA"][0]) for one in found}) == 1


@pytest.mark.slow
async def test_what_was_in_flight_when_the_gateway_was_killed_is_asked_again(services, market):
    replica = services.start_replica()
    first = services.start_gateway([replica])
    services.wait_loaded("indicators")

    def restart():
        os.kill(first.service.pid, signal.SIGKILL)
        first.service.failure()  # waits for its end
        services.start_gateway([replica], listen=first.target)

    retries = market_inference.Retries(attempts=100)
    async with (
        market_inference.AsyncClient(first.target, api_key=first.key, retries=retries) as client,
        client.stream() as stream,
    ):
        futures = [stream.indicators(market["close"], ["RSI"], last=1) for _ in range(3000)]
        await futures[0]
        await asyncio.to_thread(restart)
        found = await asyncio.wait_for(asyncio.gather(*futures), 60)
    assert len({float(one["RSI"][0]) for one in found}) == 1
