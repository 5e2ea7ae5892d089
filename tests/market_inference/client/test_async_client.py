"""The asynchronous client against a server on a real socket."""

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from market_inference import AsyncClient, Retries, errors
from market_inference.contract.errors import ServiceUnavailableError

CLOSES = np.linspace(100, 129, 30)


def test_calls_of_one_client_run_at_the_same_time(service: Any) -> None:
    both = threading.Barrier(2)
    predict, sentiment = service.on["Predict"], service.on["AnalyzeSentiment"]
    service.on["Predict"] = lambda request: (both.wait(60), predict(request))[1]
    service.on["AnalyzeSentiment"] = lambda request: (both.wait(60), sentiment(request))[1]

    async def run() -> None:
        async with AsyncClient(service.target) as client:
            forecast, mood = await asyncio.gather(client.predict(CLOSES, horizon=2), client.sentiment("up"))
        assert forecast.horizon == 2
        assert mood.label == "positive"

    asyncio.run(run())


def test_all_calls_answer_as_the_synchronous_client_does(service: Any) -> None:
    async def run() -> None:
        async with AsyncClient(service.target, api_key="secret") as client:
            assert len(await client.predict([CLOSES, CLOSES], 2)) == 2
            assert len((await client.indicators(CLOSES, "RSI", last=3))["RSI"]) == 3
            assert (await client.analyze(texts=["a"])).errors
            assert (await client.status(request_id="mine")).request_id == "mine"
            assert [model.name for model in await client.models()] == ["auto", "fracast"]

    asyncio.run(run())
    assert all(metadata["authorization"] == "Bearer secret" for _, _, metadata in service.calls)


def test_an_unavailable_service_is_tried_again(service: Any) -> None:
    service.fail("Predict", ServiceUnavailableError("draining"))

    async def run() -> None:
        async with AsyncClient(service.target, retries=Retries(first_pause=0.001)) as client:
            await client.predict(CLOSES, 1)

    asyncio.run(run())
    assert service.methods_called == ["Predict"] * 2


def test_errors_are_the_synchronous_client_s(service: Any) -> None:
    service.fail("Predict", ServiceUnavailableError("draining", retry_after=3.0), times=9)

    async def run() -> None:
        async with AsyncClient(service.target, retries=Retries(attempts=0)) as client:
            await client.predict(CLOSES, 1, request_id="r-1")

    with pytest.raises(errors.UnavailableError, match="draining") as caught:
        asyncio.run(run())
    assert (caught.value.request_id, caught.value.retry_after) == ("r-1", 3.0)


def test_cancelling_the_task_withdraws_the_call(service: Any) -> None:
    entered, release = threading.Event(), threading.Event()
    service.on["Predict"] = lambda request: (entered.set(), release.wait(60), _fail())

    async def run() -> None:
        async with AsyncClient(service.target) as client:
            task = asyncio.create_task(client.predict(CLOSES, 1))
            assert await asyncio.to_thread(entered.wait, 60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    release.set()


def _fail() -> None:
    raise ServiceUnavailableError("too late")
