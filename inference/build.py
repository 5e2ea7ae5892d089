"""The parts of the service without its transport, for the gRPC server and the serverless handler.

Owns the wiring, and the loader of each model. Loads no model.
"""

import functools
import socket
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from inference.batching.batcher import Batcher, Observer
from inference.batching.schedule import Budget
from inference.calls.answer_memory import AnswerMemory
from inference.calls.servicer import Servicer
from inference.config import Config, model_list
from inference.device import outcomes, warmup
from inference.device.device_metrics import DeviceMetrics
from inference.device.engine import Engine, device_figures, limit_memory, pick_device
from inference.device.nvml import Gpu
from inference.loading.catalog import Catalog, Slot
from inference.loading.registry import Loader, Registry
from inference.metrics import BatcherMetrics, Metrics, SessionMetrics
from inference.sessions.service import SessionService
from inference.status import Status
from inference.traces import BatchTraces
from market_inference.contract import deadline
from market_inference.contract.generated import inference_pb2
from models import forecast, indicators, sentiment
from models.manifest import Manifest
from runtime.tracing import Traces

VERSION = version("market-inference")
# A batch's padded units: points, tokens, bars times functions, characters. A batch takes 50 to 100 ms of one CPU core:
# the scheduler bounds the expected time, the engine the measured time.
BUDGETS = {
    "forecast": Budget(units=1 << 20, items=512),
    "sentiment": Budget(units=1 << 11, items=64),
    "indicators": Budget(units=1 << 20, items=256),
    "texts": Budget(units=1 << 18, items=256, seconds=0.05),
}
VERIFIERS = {
    "forecast": outcomes.forecasts,
    "sentiment": outcomes.sentiments,
    "indicators": outcomes.indicators,
    "texts": outcomes.accept,
}


@dataclass(frozen=True)
class Parts:
    """Everything but the transport. `batchers` has one per engine of the catalog, and "texts".

    `registry` is None without a configured folder.
    """

    catalog: Catalog
    engines: dict[str, Engine]
    batchers: dict[str, Batcher]
    servicer: Servicer
    metrics: Metrics
    registry: Registry | None
    sessions: SessionService

    def queued_seconds(self) -> float:
        at = deadline.now()
        return max(batcher.queued_seconds(at) for batcher in self.batchers.values())

    def close(self) -> None:
        for batcher in self.batchers.values():
            batcher.close()
        for engine in self.engines.values():
            engine.close()


def build(config: Config, traces: Traces | None = None) -> Parts:
    """Make and connect the parts. Called on the event loop that will serve."""
    device, metrics = pick_device(config.device), Metrics()
    limit_memory(device, config.device_memory_fraction)
    # Matrix products of forecasts are small: waiting for BLAS threads would take longer than the products.
    threadpool_limits(config.engine_threads, user_api="blas")
    catalog = Catalog(
        _slots(config, device),
        lambda name, model: engines[name].adopt(
            model, warmup.batches(name, model, device), batchers[name].learn_warm_up
        ),
    )
    for name in catalog.engines:
        metrics.watch_model(catalog.default(name))
    metrics.watch_models(catalog)
    metrics.build.labels(VERSION).set(1)
    if uuid := device_figures(device).uuid:
        metrics.watch_device(DeviceMetrics(lambda: device_figures(device), Gpu.find(uuid)))
    engines = {
        name: Engine(name, threads=config.engine_threads, device=device, verify=VERIFIERS[name])
        for name in catalog.engines
    }
    engines["texts"] = Engine("texts")
    batchers: dict[str, Batcher] = {}
    for name, engine in engines.items():
        observer: Observer = BatcherMetrics(metrics, name)
        batcher = Batcher(
            engine,
            observer if traces is None else BatchTraces(traces, name, observer),
            budget=BUDGETS[name],
            max_queued_seconds=config.max_queued_seconds,
            stuck_seconds=config.stuck_seconds,
            name=name,
        )
        batchers[name] = batcher
        metrics.watch_queue(name, batcher, config.max_queued_seconds)
    status = Status(
        catalog,
        batchers,
        lambda: _device(device),
        name=config.name or socket.gethostname(),
        version=VERSION,
    )
    # A thread of its own, so that a bar does not wait behind a large request for indicators.
    engines["sessions"] = Engine("sessions", threads=1)
    sessions = SessionService(
        engines["sessions"],
        batchers["forecast"],
        catalog,
        most=config.max_sessions,
        most_bytes=config.max_session_bytes,
        share=config.session_memory_share,
        stuck_seconds=config.stuck_seconds,
        observer=SessionMetrics(metrics),
    )
    metrics.watch_sessions(lambda: sessions.count, lambda: sessions.nbytes, lambda: sessions.stuck)
    registry = Registry(config.registry, catalog, _loaders(device)) if config.registry else None
    return Parts(
        catalog,
        engines,
        batchers,
        Servicer(catalog, batchers, status, AnswerMemory(config.max_answer_bytes)),
        metrics,
        registry,
        sessions,
    )


def _slots(config: Config, device: str) -> list[Slot]:
    return [
        *_engine_slots("forecast", config.forecast_models, functools.partial(_load_forecaster, device=device)),
        *_engine_slots("sentiment", config.sentiment_models, functools.partial(_load_sentiment, device=device)),
        *_engine_slots("indicators", "ta-lib", lambda name, source: indicators.load(device)),
    ]


def _engine_slots(engine: str, setting: str, load: Callable[[str, str | None], Any]) -> list[Slot]:
    return [
        Slot(engine, name, functools.partial(load, name, source), is_default=place == 0)
        for place, (name, source) in enumerate(model_list(setting))
    ]


def _loaders(device: str) -> dict[str, Loader]:
    """The loader of a folder of the registry, by the manifest's kind."""

    def forecaster(manifest: Manifest, folder: Path) -> Any:
        return forecast.load(manifest.architecture, device=device, source=str(folder))

    def classifier(manifest: Manifest, folder: Path) -> Any:
        return sentiment.load(str(folder), device=device)

    return {"forecast": forecaster, "sentiment": classifier}


def _load_forecaster(name: str, source: str | None, *, device: str) -> Any:
    return forecast.load(name, device=device, source=source)


def _load_sentiment(name: str, source: str | None, *, device: str) -> Any:
    return sentiment.load(source or name, device=device)


def _device(device: str) -> inference_pb2.Device:
    figures = device_figures(device)
    return inference_pb2.Device(
        kind=figures.kind,
        name=figures.name,
        count=figures.count,
        memory_allocated_bytes=figures.allocated,
        memory_reserved_bytes=figures.reserved,
        memory_total_bytes=figures.total,
    )
