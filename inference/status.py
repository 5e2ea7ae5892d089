"""The replica's status: every engine runs a small real input through its own queue.

Owns the probes and the resulting health.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from inference.batching.job import Job
from inference.batching.tracks import Tracks
from inference.calls.texts import PREPARATION
from inference.loading.catalog import Catalog, Slot
from market_inference.contract import deadline
from market_inference.contract.errors import OverloadedError, ServiceError
from market_inference.contract.generated import inference_pb2
from models import indicators
from models.forecast import Series

_PROBE_SECONDS = 5.0
_VALUES = 100.0 + np.sin(np.arange(64.0)) + 0.1 * np.arange(64.0)
_VALUES.setflags(write=False)
_TEXT = "Profit rose sharply."
_PROBES: dict[str, Sequence[Any]] = {
    "forecast": [Series(_VALUES, 5, (0.1, 0.5, 0.9))],
    "indicators": [
        indicators.Task(
            indicators.Panel(close=_VALUES), indicators.compile([indicators.Spec("SMA", {"timeperiod": 5})])
        )
    ],
}


class Status:
    """One replica's health, models and device."""

    def __init__(
        self,
        catalog: Catalog,
        tracks: dict[str, Tracks],
        device: Callable[[], inference_pb2.Device],
        *,
        name: str,
        version: str,
    ) -> None:
        self._catalog = catalog
        self._tracks = tracks
        self._device = device
        self._name = name
        self._version = version
        self._began = deadline.now()

    async def probe(self) -> inference_pb2.ReplicaStatus:
        """Probe every engine in parallel."""
        engines = await asyncio.gather(*(self.engine(name) for name in self._catalog.engines))
        healthy = [engine.health == inference_pb2.HEALTH_HEALTHY for engine in engines]
        remarks = [f"{engine.name}: {engine.message}" for engine in engines if engine.message]
        if refused := self._catalog.refused():
            remarks.append(f"not taken from the registry: {refused}")
        health = inference_pb2.HEALTH_DEGRADED if any(healthy) else inference_pb2.HEALTH_UNHEALTHY
        return inference_pb2.ReplicaStatus(
            name=self._name,
            health=inference_pb2.HEALTH_HEALTHY if all(healthy) else health,
            device=self._device(),
            engines=engines,
            message="; ".join(remarks),
            uptime_seconds=deadline.now() - self._began,
            version=self._version,
        )

    async def engine(self, name: str) -> inference_pb2.EngineStatus:
        """Probe one engine. An engine whose full queue refuses the probe is healthy."""
        slot = self._catalog.default(name)
        status = inference_pb2.EngineStatus(
            name=name,
            model=slot.name,
            loaded=slot.model is not None,
            health=inference_pb2.HEALTH_UNHEALTHY,
            queued_seconds=self._tracks[name].queued_seconds(deadline.now()),
        )
        if slot.model is None:
            status.message = slot.failure or "loading"
            return status
        status.model_version = slot.model.version
        status.message = remark(slot)
        began = deadline.now()
        try:
            await self._probe(name, slot.model)
            status.health = inference_pb2.HEALTH_HEALTHY
        except OverloadedError:
            status.health = inference_pb2.HEALTH_HEALTHY
            status.message = "busy: its queue is full"
        except ServiceError as error:
            status.message = error.message
        status.probe_seconds = deadline.now() - began
        return status

    async def _probe(self, engine: str, model: Any) -> None:
        if engine == "sentiment":
            (text,) = await self._run("texts", PREPARATION, [(model, _TEXT, "", 0)])
            await self._run(engine, model, text.chunks)
        else:
            await self._run(engine, model, _PROBES[engine])

    async def _run(self, name: str, model: Any, items: Sequence[Any]) -> list[Any]:
        job = Job(model, items, client="probe", deadline=deadline.after(_PROBE_SECONDS))
        self._tracks[name].submit(job)
        outcomes = await self._tracks[name].outcomes(job)
        for outcome in outcomes:
            if isinstance(outcome, ServiceError):
                raise outcome
        return outcomes

    def models(self) -> list[inference_pb2.ModelInfo]:
        """Every model of the catalog, with its state."""
        return [model_info(slot) for slot in self._catalog]


def model_info(slot: Slot) -> inference_pb2.ModelInfo:
    """A model's entry in ListModels."""
    return inference_pb2.ModelInfo(
        name=slot.name,
        engine=slot.engine,
        version=slot.model.version if slot.model else "",
        state=_state(slot),
        is_default=slot.is_default,
        message=slot.failure or remark(slot),
        takes=slot.takes if slot.model is None else getattr(slot.model, "takes", ()),
    )


def remark(slot: Slot) -> str:
    """What an operator should know of a model that serves."""
    return f"of the registry, in place of the configured version {slot.replaces}" if slot.replaces else ""


def _state(slot: Slot) -> inference_pb2.ModelState.ValueType:
    if slot.model is not None:
        return inference_pb2.MODEL_STATE_READY
    if slot.loading is not None:
        return inference_pb2.MODEL_STATE_LOADING
    return inference_pb2.MODEL_STATE_FAILED if slot.failure else inference_pb2.MODEL_STATE_AVAILABLE
