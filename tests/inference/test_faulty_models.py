"""A model that raises, hangs, gives NaN or wrong shapes, or is replaced while it runs harms no other call."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from threading import Event
from typing import Any

import numpy as np
import pytest
from grpc_health.v1 import health_pb2

from inference.build import Components, build
from inference.calls.call import ReplicaCall
from inference.config import Config
from inference.server import Server
from market_inference.contract.errors import InternalError, ServiceUnavailableError
from market_inference.contract.generated import inference_pb2 as pb
from models import forecast
from models.forecast import Forecast, Series
from tests.eventually import eventually_async

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "NAMES", (*forecast.NAMES, "faulty"))


class Faulty:
    """A forecaster with a fault in the series that begin with 666."""

    def __init__(self, fault: Callable[[Forecast], Forecast], version: str = "1") -> None:
        self._model = forecast.load("vol_rw")
        self._fault = fault
        self.version = version

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def run(self, items: list[Series]) -> list[Forecast]:
        found = self._model.run(items)
        return [self._fault(one) if item.values[0] == 666 else one for item, one in zip(items, found, strict=True)]


def request(*firsts: float, horizon: int = 5) -> bytes:
    asked = pb.PredictRequest(horizon=horizon)
    for first in firsts:
        asked.series.add(values=[first, *np.linspace(90, 110, 59)])
    return asked.SerializeToString()


async def served(fault: Callable[[Forecast], Forecast], **settings: Any) -> Components:
    parts = build(Config(device="cpu", forecast_models="faulty", sentiment_models="", _env_file=None, **settings))
    parts.catalog.default("forecast").load = lambda: Faulty(fault)
    await parts.catalog.load_defaults()
    return parts


def raising(error: BaseException) -> Callable[[Forecast], Forecast]:
    def fault(found: Forecast) -> Forecast:
        raise error

    return fault


RAISES = {
    f"raises {kind.__name__}": raising(kind())
    for kind in (ZeroDivisionError, SystemExit, KeyboardInterrupt, asyncio.CancelledError, StopIteration)
}
FAULTS = {
    **RAISES,
    "NaN among the quantiles": lambda found: found._replace(quantiles=np.full_like(found.quantiles, np.nan)),
    "an infinite median": lambda found: found._replace(point=np.full_like(found.point, np.inf)),
    "too few steps": lambda found: found._replace(point=found.point[:-1]),
    "too few levels": lambda found: found._replace(quantiles=found.quantiles[:, :-1]),
    "numbers of another type": lambda found: found._replace(point=found.point.astype(np.int64)),
    "numbers in another order of bytes": lambda found: found._replace(quantiles=found.quantiles.astype(">f8")),
    "numbers in another order": lambda found: found._replace(quantiles=np.asfortranarray(found.quantiles)),
    "crossed quantiles": lambda found: found._replace(quantiles=np.ascontiguousarray(found.quantiles[:, ::-1])),
    "a negative context": lambda found: found._replace(context=-1),
    "no coverage": lambda found: found._replace(coverage=None),
    "other warnings": lambda found: found._replace(warnings=("old data",)),
    "no forecast": lambda found: None,
    "an error as its answer": lambda found: ValueError(),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_item_with_the_fault_gets_a_typed_error_and_its_batch_mates_their_answers(fault):
    parts = await served(FAULTS[fault])
    try:
        calls = (parts.servicer.predict(request(first), ReplicaCall(client=str(first))) for first in (1, 666, 2))
        well, failed, also_well = await asyncio.gather(*calls, return_exceptions=True)
        mixed = pb.PredictResponse.FromString(await parts.servicer.predict(request(1, 666, 2), ReplicaCall()))
        invalid = parts.metrics.registry.get_sample_value(
            "market_inference_invalid_outcomes_total", {"engine": "forecast"}
        )
    finally:
        parts.close()
    assert isinstance(failed, InternalError)
    assert "'vol_rw'" in failed.message or fault in RAISES
    for answer in (well, also_well):
        assert np.isfinite(pb.PredictResponse.FromString(answer).forecasts[0].forecast.quantiles).all()
    assert [one.WhichOneof("result") for one in mixed.forecasts] == ["forecast", "error", "forecast"]
    assert invalid == (0 if fault in RAISES else 2)


SIZES = {"NaN": np.nan, "nothing": 0, "less than nothing": -1, "no end": np.inf, "no number": "many"}


@pytest.mark.parametrize("size", SIZES)
async def test_an_item_without_a_size_is_refused_and_the_engine_works_on(size):
    parts = await served(lambda found: found)
    model = parts.catalog.default("forecast").model
    try:
        model.units = lambda item: SIZES[size] if item.values[0] == 666 else 64
        call = ReplicaCall(client="a")
        async with asyncio.timeout(60):
            shorter = pb.PredictRequest(series=[pb.Series(values=np.linspace(90, 110, 40))]).SerializeToString()
            for raw in (request(666), request(666) + shorter):
                with pytest.raises(InternalError, match="'vol_rw' gave no size of this item"):
                    await parts.servicer.predict(raw, call)
            answer = pb.PredictResponse.FromString(await parts.servicer.predict(request(1), call))
    finally:
        parts.close()
    assert answer.forecasts[0].HasField("forecast")


async def test_a_model_that_is_replaced_while_it_runs_completes_its_batch():
    entered, gate = Event(), Event()

    def held(found: Forecast) -> Forecast:
        entered.set()
        assert gate.wait(60)
        return found

    parts = await served(held)
    try:
        running = asyncio.create_task(parts.servicer.predict(request(666), ReplicaCall()))
        assert await asyncio.to_thread(entered.wait, 60)
        replacing = asyncio.create_task(parts.catalog.replace("forecast", "faulty", lambda: Faulty(held, "2")))
        await asyncio.sleep(0)
        gate.set()
        answer = pb.PredictResponse.FromString(await running)
        await replacing
        after = pb.PredictResponse.FromString(await parts.servicer.predict(request(1), ReplicaCall()))
    finally:
        gate.set()
        parts.close()
    assert (answer.model_version, after.model_version) == ("1", "2")
    assert answer.forecasts[0].HasField("forecast")


@pytest.fixture
async def server(monkeypatch) -> AsyncIterator[tuple[Server, Event, Event]]:
    """A server whose forecaster hangs at series that begin with 666, until the second event is set."""
    entered, gate = Event(), Event()

    def hang(found: Forecast) -> Forecast:
        entered.set()
        assert gate.wait(60)
        return found

    server = Server(
        Config(
            device="cpu", forecast_models="faulty", sentiment_models="", drain_seconds=1,
            listen="127.0.0.1:0", metrics_listen="127.0.0.1:0", _env_file=None,
        )
    )  # fmt: skip
    server.parts.catalog.default("forecast").load = lambda: Faulty(hang)
    await server.start()
    yield server, entered, gate
    gate.set()
    await server.stop()


async def test_a_model_that_hangs_stops_its_engine_alone_and_the_replica_says_so(server, caplog):
    server, entered, gate = server
    parts, statuses = server.parts, server._health._server_status
    ready = {f"market.inference.engine.{engine}": SERVING for engine in ("forecast", "indicators")}
    await eventually_async(lambda: {name: statuses.get(name) for name in ready} == ready)
    tracks = parts.tracks["forecast"]
    for track in tracks._all:
        track._stuck_seconds = 0.2  # for the hang alone: on a busy machine, other batches take some time, too
    hung = asyncio.create_task(parts.servicer.predict(request(666), ReplicaCall(client="a")))
    assert await asyncio.to_thread(entered.wait, 60)
    waiting = asyncio.create_task(parts.servicer.predict(request(1), ReplicaCall(client="b")))
    for call in (hung, waiting):
        with pytest.raises(ServiceUnavailableError, match="the forecast engine is stuck"):
            await asyncio.wait_for(call, 60)
    for track in tracks._all:
        track._stuck_seconds = 60.0
    with pytest.raises(ServiceUnavailableError):
        await parts.servicer.predict(request(1), ReplicaCall(client="c"))
    panel = pb.Panel(symbol="S", close=np.linspace(90, 110, 60))
    indicators = pb.ComputeIndicatorsRequest(panels=[panel], indicators=[pb.IndicatorSpec(name="SMA")])
    await parts.servicer.indicators(indicators.SerializeToString(), ReplicaCall())
    await eventually_async(lambda: statuses["market.inference.engine.forecast"] == NOT_SERVING)
    assert (statuses["market.inference.engine.indicators"], statuses[""]) == (SERVING, SERVING)
    replica = await parts.servicer._status.probe()
    health = {engine.name: engine.health for engine in replica.engines}
    assert health == {"forecast": pb.HEALTH_UNHEALTHY, "indicators": pb.HEALTH_HEALTHY}
    stuck = parts.metrics.registry.get_sample_value("market_inference_engine_stuck", {"engine": "forecast"})
    assert stuck == 1
    assert "engine stuck" in caplog.text
    gate.set()
    await eventually_async(lambda: statuses["market.inference.engine.forecast"] == SERVING)
    answer = pb.PredictResponse.FromString(await parts.servicer.predict(request(1), ReplicaCall()))
    assert json.dumps(list(answer.forecasts[0].forecast.point))
