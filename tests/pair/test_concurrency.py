"""Many callers at once: right answers, real batches, and no effect of one caller's mistakes on other callers."""

import asyncio
import math
import random

import grpc
import numpy as np
import pytest

from gateway.transport.interface import LIMITS
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.generated import inference_pb2_grpc
from tests.eventually import eventually

CLIENTS = 64
ROUNDS = 4
NUISANCES = 60
# float32 on the CPU: a sentence's probabilities move by rounding with the shape of its batch.
SENTIMENT_TOLERANCE = 1e-5
# float64: the last bit moves with the shape of a matrix product. The model promises 1e-9.
FORECAST_TOLERANCE = 1e-13


def closes(seed: int) -> list[float]:
    noise = np.random.default_rng(seed).normal(0, 0.01, 60 + 7 * (seed % 9))
    return (100 * np.exp(np.cumsum(noise))).tolist()


def requests(seed: int):
    series = pb.Series(symbol=str(seed), values=closes(seed))
    specs = [pb.IndicatorSpec(name="RSI", last=3), pb.IndicatorSpec(name="BBANDS", params={"timeperiod": 5 + seed % 7})]
    return {
        "Predict": pb.PredictRequest(series=[series], horizon=1 + seed % 20),
        "AnalyzeSentiment": pb.AnalyzeSentimentRequest(
            texts=[f"Company {seed} {'beats' if seed % 2 else 'misses'} its forecast" + " again" * (seed % 11)]
        ),
        "ComputeIndicators": pb.ComputeIndicatorsRequest(panels=[pb.Panel(close=closes(seed))], indicators=specs),
    }


def numbers(answer) -> list[float]:
    """All numbers of an answer."""
    if isinstance(answer, pb.PredictResponse):
        return [*answer.forecasts[0].forecast.point, *answer.forecasts[0].forecast.quantiles]
    if isinstance(answer, pb.AnalyzeSentimentResponse):
        sentiment = answer.sentiments[0].sentiment
        return [sentiment.score, sentiment.negative, sentiment.neutral, sentiment.positive]
    outputs = [out for one in answer.panels[0].indicators.indicators for out in one.outputs]
    return [value for output in outputs for value in output.values]


def assert_same(got, alone):
    tolerances = {pb.AnalyzeSentimentResponse: SENTIMENT_TOLERANCE, pb.PredictResponse: FORECAST_TOLERANCE}
    tolerance = tolerances.get(type(got), 0.0)
    np.testing.assert_allclose(numbers(got), numbers(alone), rtol=tolerance, atol=tolerance, equal_nan=True)


async def test_64_clients_with_mixed_calls_get_the_answers_of_single_calls(running):
    async with grpc.aio.insecure_channel(running.target) as channel:
        stub = inference_pb2_grpc.MarketInferenceServiceStub(channel)

        async def ask(name, request):
            return await getattr(stub, name)(request, metadata=running.metadata, timeout=60)

        alone = {(seed, name): await ask(name, r) for seed in range(CLIENTS) for name, r in requests(seed).items()}
        before = {
            engine: running.metric("inference", "market_inference_batch_items_count", engine=engine)
            for engine in ("forecast", "sentiment", "indicators")
        }

        async def client(seed):
            calls = list(requests(seed).items()) * ROUNDS
            random.Random(seed).shuffle(calls)
            for name, request in calls:
                assert_same(await ask(name, request), alone[seed, name])

        await asyncio.gather(*(client(seed) for seed in range(CLIENTS)))
    for engine, count in before.items():
        batches = running.metric("inference", "market_inference_batch_items_count", engine=engine) - count
        assert batches < CLIENTS * ROUNDS, f"no batches formed on {engine}"


async def test_cancels_timeouts_and_bad_items_never_change_the_answers_of_other_callers(running):
    async with grpc.aio.insecure_channel(running.target) as channel:
        stub = inference_pb2_grpc.MarketInferenceServiceStub(channel)
        good = requests(1)
        alone = {name: await getattr(stub, name)(r, metadata=running.metadata, timeout=60) for name, r in good.items()}

        async def cancelling(seed):
            dice = random.Random(seed)
            for _ in range(NUISANCES):
                call = stub.AnalyzeSentiment(requests(seed)["AnalyzeSentiment"], metadata=running.metadata, timeout=60)
                await asyncio.sleep(dice.random() * 0.02)
                call.cancel()
                with pytest.raises((asyncio.CancelledError, grpc.RpcError)):
                    await call
                    raise asyncio.CancelledError  # it was answered before the cancel

        async def impatient(seed):
            for _ in range(NUISANCES):
                try:
                    await stub.Predict(requests(seed)["Predict"], metadata=running.metadata, timeout=0.002)
                except grpc.RpcError as error:
                    assert error.code() in {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}

        async def mistaken(seed):
            bad = pb.PredictRequest(series=[pb.Series(values=[*closes(seed), math.nan])], horizon=3)
            for _ in range(NUISANCES):
                with pytest.raises(grpc.RpcError) as caught:
                    await stub.Predict(bad, metadata=running.metadata, timeout=60)
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

        async def careful():
            for _ in range(10):
                for name, request in good.items():
                    assert_same(await getattr(stub, name)(request, metadata=running.metadata, timeout=60), alone[name])

        nuisances = [nuisance(seed) for seed in range(4) for nuisance in (cancelling, impatient, mistaken)]
        await asyncio.gather(*(careful() for _ in range(4)), *nuisances)
    # The services learn of the last cancels after the callers are done.
    for service in ("gateway", "inference"):
        eventually(lambda name=service: running.metric(name, f"market_{name}_in_flight_requests") == 0)


async def test_more_calls_than_a_connection_allows_wait_in_the_client(running):
    request = requests(1)["ComputeIndicators"]
    async with grpc.aio.insecure_channel(running.target) as channel:
        stub = inference_pb2_grpc.MarketInferenceServiceStub(channel)

        async def one_after_the_other() -> None:
            for _ in range(5):
                await stub.ComputeIndicators(request, metadata=running.metadata, timeout=60)

        await asyncio.gather(*(one_after_the_other() for _ in range(LIMITS["max_concurrent_streams"] + 100)))
