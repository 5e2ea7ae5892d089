"""The health and the models of the service, as plain values.

Owns the decoding of GetStatus and ListModels answers.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from market_inference.client import checks
from market_inference.contract.generated import inference_pb2 as pb

_YEAR_10000 = 253_402_300_800
"""Seconds since 1970, where Python's dates end."""


@dataclass(frozen=True, slots=True)
class Device:
    """The device of a replica. `kind` is "cpu" or "cuda"; memory in bytes, 0 where unknown."""

    kind: str
    name: str
    count: int
    memory_allocated: int
    memory_reserved: int
    memory_total: int


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """One engine: `name` is "forecast", "sentiment" or "indicators"; `health` "healthy", "degraded" or "unhealthy".

    `probe_seconds`: time for a small real input. `queued_seconds`: expected time of the work in the queue.
    """

    name: str
    health: str
    model: str
    model_version: str
    loaded: bool
    probe_seconds: float
    queued_seconds: float
    message: str


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """One inference process."""

    name: str
    health: str
    device: Device
    engines: tuple[EngineStatus, ...]
    message: str
    uptime_seconds: float
    version: str


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """The service as a whole, seen through its gateway."""

    health: str
    time: datetime
    version: str
    replicas: tuple[ReplicaStatus, ...]
    request_id: str

    @property
    def engines(self) -> tuple[EngineStatus, ...]:
        """The engines of all replicas."""
        return tuple(engine for replica in self.replicas for engine in replica.engines)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that a request may name. `state` is "available", "loading", "ready" or "failed"."""

    name: str
    engine: str
    version: str
    state: str
    is_default: bool
    message: str
    takes: tuple[str, ...] = ()
    """Of a forecaster: the optional arguments of predict() that it takes: "period", "covariates", "groups"."""


def read_status(answer: pb.GetStatusResponse) -> ServiceStatus:
    request_id = answer.request_id
    if not 0 < answer.time.seconds < _YEAR_10000:
        raise checks.wrong("time", "the service's time", f"{answer.time.seconds} s since 1970", request_id)
    return ServiceStatus(
        health=_health(answer.health, "health", request_id),
        time=answer.time.ToDatetime(tzinfo=UTC),
        version=answer.version,
        replicas=tuple(_replica(replica, f"replicas[{at}]", request_id) for at, replica in enumerate(answer.replicas)),
        request_id=request_id,
    )


def read_models(answer: pb.ListModelsResponse) -> list[ModelInfo]:
    return [
        ModelInfo(
            name=model.name,
            engine=model.engine,
            version=model.version,
            state=checks.word(pb.ModelState, model.state, f"models[{at}].state", answer.request_id),
            is_default=model.is_default,
            message=model.message,
            takes=tuple(model.takes),
        )
        for at, model in enumerate(answer.models)
    ]


def _health(value: int, place: str, request_id: str) -> str:
    return checks.word(pb.Health, value, place, request_id)


def _replica(replica: pb.ReplicaStatus, place: str, request_id: str) -> ReplicaStatus:
    return ReplicaStatus(
        name=replica.name,
        health=_health(replica.health, f"{place}.health", request_id),
        device=_device(replica.device),
        engines=tuple(
            _engine(engine, f"{place}.engines[{at}]", request_id) for at, engine in enumerate(replica.engines)
        ),
        message=replica.message,
        uptime_seconds=replica.uptime_seconds,
        version=replica.version,
    )


def _device(device: pb.Device) -> Device:
    return Device(
        kind=device.kind,
        name=device.name,
        count=device.count,
        memory_allocated=device.memory_allocated_bytes,
        memory_reserved=device.memory_reserved_bytes,
        memory_total=device.memory_total_bytes,
    )


def _engine(engine: pb.EngineStatus, place: str, request_id: str) -> EngineStatus:
    return EngineStatus(
        name=engine.name,
        health=_health(engine.health, f"{place}.health", request_id),
        model=engine.model,
        model_version=engine.model_version,
        loaded=engine.loaded,
        probe_seconds=engine.probe_seconds,
        queued_seconds=engine.queued_seconds,
        message=engine.message,
    )
