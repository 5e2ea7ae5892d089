"""Many calls of the client library on one stream."""

import asyncio

import numpy as np
import pytest

import market_inference
from market_inference import errors


def client_of(service):
    return market_inference.AsyncClient(service.target, api_key=service.key)


async def test_answers_equal_those_of_separate_calls(running, market):
    async with client_of(running) as client, client.stream() as stream:
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


async def test_the_other_calls_are_answered_when_one_fails(running, market):
    async with client_of(running) as client, client.stream() as stream:
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


async def test_a_cancelled_future_withdraws_its_call(running, market):
    async with client_of(running) as client, client.stream() as stream:
        first = await stream.predict(market["close"], 3)
        withdrawn = stream.predict(market["close"], 3)
        withdrawn.cancel()
        later = await stream.predict(market["close"], 3)
        np.testing.assert_array_equal(first.point, later.point)
        assert withdrawn.cancelled()


async def test_calls_beyond_the_credits_wait(running, market):
    async with client_of(running) as client, client.stream() as stream:
        futures = [stream.indicators(market["close"][:40], ["SMA"], last=1) for _ in range(3000)]
        found = await asyncio.gather(*futures)
    assert len({float(one["SMA"][0]) for one in found}) == 1


def test_the_synchronous_stream_answers_as_separate_calls(running, market):
    with (
        market_inference.Client(running.target, api_key=running.key) as client,
        client.stream() as stream,
    ):
        futures = {stream.indicators(market["close"][: 40 + at], ["RSI"], last=1): 40 + at for at in range(100)}
        for future in stream.as_completed(futures):
            if futures[future] % 25 == 0:
                alone = client.indicators(market["close"][: futures[future]], ["RSI"], last=1)
                np.testing.assert_array_equal(future.result()["RSI"], alone["RSI"])
        with pytest.raises(errors.NotFoundError):
            stream.predict(market["close"], 3, model="oracle").result()
        with pytest.raises(errors.ArgumentError, match="horizon"):
            stream.predict(market["close"], "3")
    with pytest.raises(errors.ClosedError):
        stream.predict(market["close"], 3)


async def test_more_items_than_a_request_holds_are_one_future(running, market):
    series = {f"S{at}": market["close"][:40] + at for at in range(300)} | {"SHORT": [1.0, 2.0]}
    async with client_of(running) as client, client.stream() as stream:
        found = await stream.predict(series, 1, quantiles=[0.5])
    assert found.symbols == tuple(series)
    assert len(found.answered) == 300
    with pytest.raises(errors.InvalidRequestError, match=r"SHORT: series\[300\].values"):
        found["SHORT"]
