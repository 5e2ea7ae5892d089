"""Merged calls get the same answers as single calls, and the services count every call."""

import asyncio

import grpc
import numpy as np
import pytest

from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.generated import inference_pb2_grpc

CALLS = 12
# A matrix product's last bit moves with its shape.
TOLERANCE = 1e-13


def bars(seed: int) -> pb.Panel:
    close = 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.01, 80)))
    return pb.Panel(symbol=str(seed), open=close, high=close * 1.01, low=close * 0.99, close=close)


def predict(seed: int) -> pb.StreamItem:
    series = [pb.Series(symbol=f"{seed}.{n}", values=bars(100 * seed + n).close) for n in range(1 + seed % 3)]
    return pb.StreamItem(id=seed, predict=pb.PredictRequest(series=series, horizon=7, quantiles=[0.9, 0.1]))


def indicators(seed: int, panel: pb.Panel | None = None) -> pb.StreamItem:
    specs = [pb.IndicatorSpec(name="ATR", params={"timeperiod": 10}), pb.IndicatorSpec(name="SMA", last=4)]
    request = pb.ComputeIndicatorsRequest(panels=[panel or bars(seed)], indicators=specs)
    return pb.StreamItem(id=seed, indicators=request)


@pytest.fixture
async def stub(running):
    async with grpc.aio.insecure_channel(running.target) as channel:
        yield inference_pb2_grpc.MarketInferenceServiceStub(channel)


async def together(running, stub, items) -> dict[int, pb.StreamResult]:
    """The results of requests of one message. The gateway reads and merges them in one turn of its event loop."""
    call = stub.Stream(metadata=running.metadata)
    await call.write(pb.StreamRequest(requests=items))
    await call.done_writing()
    return {result.id: result async for message in call for result in message.answers}


def counted(running, method: str) -> tuple[float, float, float]:
    """The inference service's counts of requests, of measured requests, and of batches."""
    name = {"predict": "forecast", "indicators": "indicators"}[method]
    return (
        running.metric("inference", "market_inference_requests_total", method=method, code="OK"),
        running.metric("inference", "market_inference_request_phase_seconds_count", method=method, phase="total"),
        running.metric("inference", "market_inference_batch_items_count", engine=name),
    )


async def test_merged_forecasts_equal_single_forecasts(running, stub):
    items = [predict(seed) for seed in range(1, CALLS + 1)]
    before = counted(running, "predict")
    found = await together(running, stub, items)
    requests, timed, batches = np.subtract(counted(running, "predict"), before)
    assert requests == timed == CALLS
    assert batches < CALLS
    for item in items:
        alone = await stub.Predict(item.predict, metadata=running.metadata, timeout=60)
        answer = found[item.id].predict
        assert [one.symbol for one in answer.forecasts] == [one.symbol for one in item.predict.series]
        assert list(answer.quantile_levels) == [0.1, 0.9]
        assert (answer.model, answer.model_version) == (alone.model, alone.model_version)
        for ours, theirs in zip(answer.forecasts, alone.forecasts, strict=True):
            np.testing.assert_allclose(ours.forecast.quantiles, theirs.forecast.quantiles, rtol=TOLERANCE)
            np.testing.assert_allclose(ours.forecast.point, theirs.forecast.point, rtol=TOLERANCE)
            assert ours.forecast.coverage == theirs.forecast.coverage


async def test_merged_indicators_equal_single_ones_and_a_failing_call_fails_alone(running, stub):
    closes = pb.Panel(close=bars(5).close)  # ATR needs more
    items = [indicators(seed, closes if seed == 5 else None) for seed in range(1, CALLS + 1)]
    found = await together(running, stub, items)
    for item in items:
        if item.id == 5:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ComputeIndicators(item.indicators, metadata=running.metadata, timeout=60)
            assert caught.value.details() == found[5].error.message
            assert "panels[0].high" in found[5].error.message
            continue
        alone = await stub.ComputeIndicators(item.indicators, metadata=running.metadata, timeout=60)
        answer = found[item.id].indicators
        assert answer.request_id.endswith(f"/{item.id}")
        assert answer.panels == alone.panels


async def test_cancelled_calls_do_not_change_the_answers_of_merged_calls(running, stub):
    items = [indicators(seed) for seed in range(1, CALLS + 1)]
    call = stub.Stream(metadata=running.metadata)
    cancels = [pb.StreamItem(id=seed, cancel=pb.StreamCancel()) for seed in (2, 3, 7)]
    await call.write(pb.StreamRequest(requests=[*items, *cancels]))
    await call.done_writing()
    found = {result.id: result async for message in call for result in message.answers}
    # A cancel may come after the answer, when the requests of the message took several slices.
    cancelled = {seed for seed, result in found.items() if result.HasField("error")}
    assert len(found) == CALLS
    assert cancelled <= {2, 3, 7}
    for item in items:
        if item.id not in cancelled:
            alone = await stub.ComputeIndicators(item.indicators, metadata=running.metadata, timeout=60)
            assert found[item.id].indicators.panels == alone.panels


async def test_simultaneous_unary_calls_get_the_answers_of_single_calls(running, stub):
    async def ask(seed: int) -> pb.ComputeIndicatorsResponse:
        return await stub.ComputeIndicators(indicators(seed).indicators, metadata=running.metadata, timeout=60)

    alone = [await ask(seed) for seed in range(64)]
    for seed, answer in enumerate(await asyncio.gather(*map(ask, range(64)))):
        assert answer.panels == alone[seed].panels
