"""A device that runs out of memory, injected under the whole service: wiring, batcher, engine and a real model."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from inference.build import Components, build
from inference.calls.call import ReplicaCall
from inference.config import Config
from market_inference.contract.errors import OverloadedError
from market_inference.contract.generated import inference_pb2
from models import forecast
from models.forecast import Forecast, Series

ROOM = 8 * (64 + 5 * 9)
"""Padded points: eight series of up to 65 points with five steps and nine levels."""


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "NAMES", (*forecast.NAMES, "tight"))


class Tight:
    """A forecaster on a device with room for a number of padded points; records the batches."""

    def __init__(self) -> None:
        self._model = forecast.load("vol_rw")
        self.tried: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def run(self, items: Sequence[Series]) -> Sequence[Forecast]:
        self.tried.append(len(items))
        if max(self._model.units(item) for item in items) * len(items) > ROOM:
            raise torch.OutOfMemoryError("injected")
        return self._model.run(items)


@pytest.fixture
async def parts() -> AsyncIterator[Components]:
    parts = build(Config(device="cpu", forecast_models="tight", _env_file=None))
    parts.catalog.default("forecast").load = Tight
    yield parts
    parts.close()


def request(count: int, points: int = 60) -> inference_pb2.PredictRequest:
    rng = np.random.default_rng(points)
    request = inference_pb2.PredictRequest(horizon=5)
    for index in range(count):
        request.series.add(symbol=str(index), values=(100 + rng.normal(size=points)).tolist())
    return request


def answer(response: bytes) -> inference_pb2.PredictResponse:
    return inference_pb2.PredictResponse.FromString(response)


def recoveries(parts: Components) -> float:
    name = "market_inference_out_of_memory_recoveries_total"
    return parts.metrics.registry.get_sample_value(name, {"engine": "forecast"}) or 0.0


async def test_a_request_that_does_not_fit_is_halved_and_the_ceiling_remembered(parts: Components) -> None:
    asked = request(64)
    found = answer(await parts.servicer.predict(asked.SerializeToString(), ReplicaCall())).forecasts
    alone = forecast.load("vol_rw").run([Series(np.array(asked.series[9].values), 5, (0.5,))])
    tight = parts.catalog.default("forecast").model
    assert len(found) == 64
    np.testing.assert_allclose(found[9].forecast.point, alone[0].point, rtol=1e-9)
    met, tight.tried[:] = recoveries(parts), []
    assert met > 0
    await parts.servicer.predict(request(64).SerializeToString(), ReplicaCall())
    assert max(tight.tried) <= 8
    assert recoveries(parts) == met


async def test_requests_that_share_the_failed_batch_are_all_answered(parts: Components) -> None:
    calls = (parts.servicer.predict(request(3).SerializeToString(), ReplicaCall()) for _ in range(20))
    found = [answer(response) for response in await asyncio.gather(*calls)]
    assert [[one.WhichOneof("result") for one in each.forecasts] for each in found] == [["forecast"] * 3] * 20
    assert max(parts.catalog.default("forecast").model.tried) > 8


async def test_a_series_that_does_not_fit_alone_is_refused_and_its_neighbours_are_answered(parts: Components) -> None:
    asked = request(4)
    asked.series[2].values.extend(np.linspace(90, 110, 2000))
    found = answer(await parts.servicer.predict(asked.SerializeToString(), ReplicaCall())).forecasts
    assert [one.WhichOneof("result") for one in found] == ["forecast", "forecast", "error", "forecast"]
    assert found[2].error.message == "the item alone does not fit the device's memory"
    with pytest.raises(OverloadedError, match="does not fit"):
        await parts.servicer.predict(request(1, 2000).SerializeToString(), ReplicaCall())


async def test_a_model_without_room_for_its_warm_up_serves_all_the_same(parts: Components, caplog: Any) -> None:
    await parts.servicer.predict(request(1).SerializeToString(), ReplicaCall())
    assert "no room to warm up" in caplog.text
