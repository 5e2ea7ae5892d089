"""The parts of the service without its transport, for the gRPC server and the serverless handler.

Owns the wiring, and the loader of each model. Loads no model.
"""

import functools
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from inference.batching.batcher import Batcher, Observer
from inference.batching.costs import Costs
from inference.batching.job import BatchBounds
from inference.batching.tracks import Tracks
from inference.calls.answer_memory import AnswerMemory
from inference.calls.servicer import Servicer
from inference.calls.shadow import Shadows
from inference.config import Config, model_list
from inference.device import blas, outcomes, warmup
from inference.device.cuda import device_figures, limit_memory, pick_device
from inference.device.device_metrics import DeviceMetrics
from inference.device.engine import Engine
from inference.device.nvml import Gpu
from inference.loading.bucket import BucketSource
from inference.loading.catalog import Catalog, Slot
from inference.loading.folder import FolderSource
from inference.loading.registry import Loader, Registry
from inference.loading.sentiment import SentimentLoader
from inference.loading.source import Source
from inference.metrics import BatcherMetrics, LoadedModels, Metrics, SessionMetrics
from inference.sessions.service import SessionService
from inference.status import Status
from inference.traces import BatchTraces
from market_inference.contract import deadline
from market_inference.contract.generated import inference_pb2
from market_inference.contract.state import state_dir
from models import forecast, indicators, sentiment
from models.model import ModelUnavailableError
from runtime.remote.location import Location
from runtime.settings import SettingsError
from runtime.tracing import Traces

VERSION = version("market-inference")
Load = Callable[[str, str | None], Any]
Require = Callable[[str, str | None], None]
# A batch's padded units: points, tokens, bars times functions, characters. A batch takes 50 to 100 ms of one CPU core:
# the scheduler bounds the expected time, the engine the measured time.
BUDGETS = {
    "forecast": BatchBounds(units=1 << 20, items=512),
    "sentiment": BatchBounds(units=1 << 11, items=64),
    "indicators": BatchBounds(units=1 << 20, items=256),
    "texts": BatchBounds(units=1 << 18, items=256, seconds=0.05),
}
VERIFIERS = {
    "forecast": outcomes.forecasts,
    "sentiment": outcomes.sentiments,
    "indicators": outcomes.indicators,
}


# Engines with a second thread for long items. Chunks of texts differ little: the longest takes some 30 ms.
LONG_TRACKS = ("forecast", "indicators")
# On a busy CPU, a thread for long items gives way to the event loop and to quick items.
LONG_NICE = 10
# A request passes the interpreter lock between event loop and engine several times. Beside a thread in Python code (a
# session's history loads), a pass may take a whole interval: with Python's 5 ms, a call took 17 ms.
SWITCH_SECONDS = 0.0005


@dataclass(frozen=True)
class Components:
    """Everything but the transport.

    `tracks` has the tracks of each engine of the catalog, and of "texts"; `engines` has the threads. `registry` is None
    without a configured folder.
    """

    catalog: Catalog
    engines: dict[str, Engine]
    tracks: dict[str, Tracks]
    servicer: Servicer
    metrics: Metrics
    registry: Registry | None
    sessions: SessionService

    def queued_seconds(self) -> float:
        at = deadline.now()
        return max([tracks.queued_seconds(at) for tracks in self.tracks.values()])

    def tracks_of(self, engine: str) -> list[Tracks]:
        """The tracks that a request for an engine takes."""
        names = ("texts", engine) if engine == "sentiment" else (engine,)
        return [self.tracks[name] for name in names]

    def close(self) -> None:
        for tracks in self.tracks.values():
            tracks.close()
        for engine in self.engines.values():
            engine.close()


def build(config: Config, traces: Traces | None = None, load_sentiment: SentimentLoader | None = None) -> Components:
    """Make and connect the parts. Called on the event loop that will serve.

    `load_sentiment`: a loader that may have begun, else one is made. Raises SettingsError, ExtraMissingError.
    """
    device, metrics = pick_device(config.device), Metrics()
    sys.setswitchinterval(SWITCH_SECONDS)
    limit_memory(device, config.device_memory_fraction)
    blas.limit(config.engine_threads)
    load_sentiment = load_sentiment or SentimentLoader(config, device)
    catalog = Catalog(
        _slots(config, device, load_sentiment),
        lambda name, model: _adopt(name, model, device, engines, tracks[name]),
        load_seconds=config.load_seconds,
    )
    for name in catalog.engines:
        metrics.watch_model(catalog.default(name))
    metrics.registry.register(LoadedModels(catalog))
    metrics.build.labels(VERSION).set(1)
    if uuid := device_figures(device).uuid:
        metrics.registry.register(DeviceMetrics(lambda: device_figures(device), Gpu.find(uuid)))
    engines = {
        name: Engine(name, threads=config.engine_threads, device=device, verify=VERIFIERS[name])
        for name in catalog.engines
    }
    engines["texts"] = Engine("texts")
    for name in engines.keys() & set(LONG_TRACKS):
        engines[_long(name)] = Engine(
            _long(name), threads=config.engine_threads, device=device, verify=VERIFIERS[name], nice=LONG_NICE
        )
    tracks: dict[str, Tracks] = {}
    for name in (*catalog.engines, "texts"):
        observer: Observer = BatcherMetrics(metrics, name)
        make = functools.partial(
            Batcher,
            observer=observer if traces is None else BatchTraces(traces, name, observer),
            budget=BUDGETS[name],
            max_queued_seconds=config.max_queued_seconds,
            stuck_seconds=config.stuck_seconds,
            name=name,
            costs=Costs(),
        )
        tracks[name] = Tracks(make(engines[name]), make(engines[_long(name)]) if _long(name) in engines else None)
        metrics.watch_queue(name, tracks[name], config.max_queued_seconds)
    status = Status(
        catalog,
        tracks,
        lambda: _device(device),
        name=config.name or socket.gethostname(),
        version=VERSION,
    )
    # A thread of its own, so that a bar does not wait behind a large request for indicators, and one for histories.
    engines["sessions"] = Engine("sessions")
    engines["histories"] = Engine("histories", nice=LONG_NICE)
    sessions = SessionService(
        engines["sessions"],
        engines["histories"],
        tracks["forecast"],
        catalog,
        most=config.max_sessions,
        most_bytes=config.max_session_bytes,
        share=config.session_memory_share,
        stuck_seconds=config.stuck_seconds,
        observer=SessionMetrics(metrics),
    )
    metrics.watch_sessions(lambda: sessions.count, lambda: sessions.nbytes, lambda: sessions.stuck)
    registry = Registry(_source(config), catalog, _loaders(device, load_sentiment)) if config.registry else None
    shadows = Shadows(catalog, tracks, metrics.shadow)
    servicer = Servicer(catalog, tracks, status, AnswerMemory(config.max_answer_bytes), shadows)
    return Components(catalog, engines, tracks, servicer, metrics, registry, sessions)


async def _adopt(name: str, model: Any, device: str, engines: Mapping[str, Engine], tracks: Tracks) -> None:
    """Check and warm up a model on the engine's thread for long items, where no quick batch waits behind a slow model.

    On CUDA caches belong to a thread: the thread for quick items.
    """
    threads = [engines[one] for one in (name, _long(name)) if one in engines]
    for engine in threads:
        await engine.prepare()
    warm = threads[0] if device.startswith("cuda") else threads[-1]
    await warm.adopt(model, warmup.batches(name, model, device), tracks.learn_warm_up)


def _long(name: str) -> str:
    """The name of an engine's thread for long items."""
    return f"{name}-long"


def _source(config: Config) -> Source:
    """Raises ExtraMissingError for a bucket without boto3."""
    if "://" not in config.registry:
        return FolderSource(Path(config.registry))
    cache = config.registry_cache or state_dir() / "registry"
    return BucketSource(Location.of(config.registry), cache.absolute())


def _slots(config: Config, device: str, load_sentiment: SentimentLoader) -> list[Slot]:
    """The configured models; one that misses a package is listed with that reason from the start.

    Raises SettingsError for a forecaster that does not exist.
    """
    for name, _ in model_list(config.forecast_models):
        if name not in forecast.NAMES:
            variable = Config.variable("forecast_models")
            raise SettingsError([f"{variable}: {forecast.UnknownForecasterError(name)}"])

    def forecaster(name: str, source: str | None) -> Any:
        return forecast.load(name, device=device, source=source)

    # Engine, models, loader of a model, check of the model's packages, and fields of a request that models take.
    rows: tuple[tuple[str, str, Load, Require, Mapping[str, tuple[str, ...]]], ...] = (
        (
            "forecast",
            config.forecast_models,
            forecaster,
            lambda name, source: forecast.require_packages(name),
            forecast.TAKES,
        ),
        (
            "sentiment",
            config.sentiment_models,
            load_sentiment,
            lambda name, source: sentiment.require_packages(source or name),
            {},
        ),
        ("indicators", "ta-lib", lambda *_: indicators.load(device), lambda *_: None, {}),
    )
    return [
        Slot(
            engine,
            name,
            functools.partial(load, name, source),
            is_default=place == 0,
            takes=takes.get(name, ()),
            failure=_missing(functools.partial(require, name, source)),
        )
        for engine, setting, load, require, takes in rows
        for place, (name, source) in enumerate(model_list(setting))
    ]


def _missing(require: Callable[[], None]) -> str:
    try:
        require()
    except ModelUnavailableError as error:
        return str(error)
    return ""


def _loaders(device: str, load_sentiment: SentimentLoader) -> dict[str, Loader]:
    """The loader of a folder of the registry, by the manifest's kind."""
    return {
        "forecast": functools.partial(forecast.of_folder, device=device),
        "sentiment": lambda manifest, folder: load_sentiment.fresh(manifest.name, str(folder)),
    }


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
