"""Calls of one client that are in flight together share a stream, and nothing changes for the caller."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import market_inference
from market_inference import errors
from market_inference.client import aio
from tests.eventually import eventually, eventually_async


def client_of(running):
    return market_inference.AsyncClient(running.target, api_key=running.key)


def log_lines(running, request_ids):
    lines = (json.loads(line) for line in running.log("gateway").splitlines() if line.startswith("{"))
    return {line["request_id"]: line for line in lines if line.get("request_id") in request_ids}


async def test_calls_in_company_have_the_answers_of_lone_calls(running, market):
    series = [market["close"][: 100 + at] for at in range(64)]
    async with client_of(running) as client:
        alone = [await client.predict(one, 5, model="vol_rw") for one in series[:8]]
        assert client._lane is None, "a lone call is unary"
        together = await asyncio.gather(*(client.predict(one, 5, model="vol_rw") for one in series))
        assert client._lane is not None
    for one, other in zip(alone, together, strict=False):
        np.testing.assert_allclose(one.quantiles, other.quantiles, rtol=1e-9)


async def test_every_call_keeps_its_id_priority_and_log_line(running, market):
    ids = [f"lane-{at}" for at in range(6)]
    async with client_of(running) as client:
        found = await asyncio.gather(
            *(client.predict(market["close"], 3, request_id=one, priority="batch") for one in ids)
        )
    assert [answer.request_id for answer in found] == ids
    lines = log_lines(running, set(ids))
    assert set(lines) == set(ids)
    assert {line["method"] for line in lines.values()} == {"Predict"}


async def test_an_error_reaches_its_own_call_only(running, market):
    async with client_of(running) as client:
        calls = [
            client.predict(market["close"], 3, request_id="lost", model="oracle" if at == 2 else "") for at in range(5)
        ]
        found = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(found[2], errors.NotFoundError)
    assert found[2].request_id == "lost"
    assert [type(one).__name__ for one in found].count("Forecast") == 4


async def test_a_deadline_and_a_cancel_end_their_own_call_only(running, market):
    async with client_of(running) as client:
        late = asyncio.create_task(client.predict(market["close"], 3, timeout=1e-6))
        gone = asyncio.create_task(client.predict(market["close"], 3))
        kept = [asyncio.create_task(client.predict(market["close"], 3)) for _ in range(5)]
        await asyncio.sleep(0)
        gone.cancel()
        assert all(one.horizon == 3 for one in await asyncio.gather(*kept))
        with pytest.raises(errors.DeadlineExceededError, match=r"timeout passed|deadline had passed"):
            await late
        with pytest.raises(asyncio.CancelledError):
            await gone
        lane = client._lane
        assert lane is not None
        await eventually_async(lambda: not lane._in_flight)


async def test_an_idle_lane_ends_and_a_later_call_opens_it_again(running, market, monkeypatch):
    monkeypatch.setattr(aio, "IDLE_SECONDS", 0.05)
    async with client_of(running) as client:
        for _ in range(2):
            await asyncio.gather(*(client.predict(market["close"], 3) for _ in range(4)))
            lane = client._lane
            assert lane is not None
            await eventually_async(lambda lane=lane: lane._task is None)


async def test_closing_the_client_ends_calls_in_flight(running, market):
    client = client_of(running)
    calls = [asyncio.create_task(client.predict(market["close"], 3)) for _ in range(4)]
    await asyncio.sleep(0)  # each task has sent its call in its first step
    assert client._lane is not None
    assert client._lane._waiting
    await client.close()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert any(isinstance(one, errors.CancelledError) for one in found)
    ends = errors.MarketInferenceError | market_inference.Forecast | asyncio.CancelledError
    assert all(isinstance(one, ends) for one in found)


def test_threads_share_a_lane(running, market):
    series = [market["close"][: 100 + at] for at in range(8)]
    with market_inference.Client(running.target, api_key=running.key) as client, ThreadPoolExecutor(8) as threads:
        alone = [client.predict(one, 5, model="vol_rw") for one in series]
        assert client._lane._thread is None, "a lone call is unary"
        for _ in range(20):
            together = list(threads.map(lambda one: client.predict(one, 5, model="vol_rw"), series))
            for one, other in zip(alone, together, strict=True):
                np.testing.assert_allclose(one.quantiles, other.quantiles, rtol=1e-9)
        assert client._lane._thread is not None
        thread = client._lane._thread
    eventually(lambda: not thread.is_alive())


def test_a_late_thread_withdraws_its_call(running, market):
    with market_inference.Client(running.target, api_key=running.key) as client, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: client.predict(market["close"], 3), range(16)))
        # A thread ends by its own timeout, or with the refusal of the service.
        late = [threads.submit(client.predict, market["close"], 3, timeout=1e-6) for _ in range(8)]
        assert {type(one.exception()) for one in late} == {errors.DeadlineExceededError}
        lane = client._lane._lane
        eventually(lambda: lane is not None and not lane._in_flight)
        assert client.predict(market["close"], 3).horizon == 3
