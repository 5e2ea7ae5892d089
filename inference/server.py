"""The service put together and put on a socket.

Owns the wiring in build() and the order of starting and stopping. main.py reads the configuration and the signals.
"""

import asyncio
import functools
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from prometheus_client import start_http_server

from inference.batcher import Batcher
from inference.catalogue import Catalogue, Slot
from inference.config import Config, model_list
from inference.engine import Engine, device_figures, pick_device
from inference.exchange import Exchange
from inference.metrics import BatcherMetrics, Metrics
from inference.schedule import Budget
from inference.servicer import Servicer
from inference.status import Status
from market.inference.v1 import exchange_pb2, exchange_pb2_grpc, inference_pb2
from models import forecast, indicators, sentiment
from wire import deadline
from wire.listen import split

log = logging.getLogger(__name__)

# A batch's padded units: points, tokens and bars times functions. About 50 to 100 ms of one CPU core each.
BUDGETS = {
    "forecast": Budget(units=1 << 20, items=512),
    "sentiment": Budget(units=1 << 11, items=64),
    "indicators": Budget(units=1 << 20, items=256),
}
READY = health_pb2.HealthCheckResponse.SERVING
NOT_READY = health_pb2.HealthCheckResponse.NOT_SERVING
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),  # the gateway has checked sizes; frames carry many requests
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5000),
)


@dataclass(frozen=True)
class Parts:
    """The service without its transport: what the gRPC server and the serverless handler both stand on."""

    catalogue: Catalogue
    engines: dict[str, Engine]
    batchers: dict[str, Batcher]
    servicer: Servicer
    metrics: Metrics

    def queued_seconds(self) -> float:
        at = deadline.now()
        return max(batcher.queued_seconds(at) for batcher in self.batchers.values())

    def close(self) -> None:
        for batcher in self.batchers.values():
            batcher.close()
        for engine in self.engines.values():
            engine.close()


def build(config: Config) -> Parts:
    """Wire everything up. Called on the event loop; nothing is loaded yet."""
    device, metrics = pick_device(config.device), Metrics()
    catalogue = Catalogue(_slots(config, device))
    engines = {name: Engine(name, threads=config.engine_threads) for name in catalogue.engines}
    batchers = {}
    for name, engine in engines.items():
        batcher = Batcher(
            engine,
            BatcherMetrics(metrics, name),
            budget=BUDGETS[name],
            max_queued_seconds=config.max_queued_seconds,
        )
        batchers[name] = batcher
        metrics.watch_queue(name, batcher)
    status = Status(
        catalogue,
        batchers,
        lambda: _device(device),
        name=config.name or socket.gethostname(),
        version=version("market-inference"),
    )
    return Parts(catalogue, engines, batchers, Servicer(catalogue, batchers, status), metrics)


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


class Server:
    """The service on a socket: listens at once, reports ready engine by engine as their models load."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.parts = build(config)
        self._exchange = Exchange(self.parts.servicer, self.parts.queued_seconds, self.parts.metrics.answered)
        self.parts.metrics.in_flight.set_function(lambda: self._exchange.in_flight)
        self._health = health_aio.HealthServicer()
        self._server = grpc.aio.server(options=CHANNEL_OPTIONS)
        self._loading: asyncio.Task[None] | None = None
        self.address = ""
        self.metrics_address = ""

    async def start(self) -> None:
        """Listen, then load the models in the background."""
        exchange_pb2_grpc.add_ExchangeServiceServicer_to_server(self._exchange, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        await self._health.set("", NOT_READY)
        host, _ = split(self._config.listen)
        self.address = f"{host}:{self._server.add_insecure_port(self._config.listen)}"
        await self._server.start()
        host, port = split(self._config.metrics_listen)
        self._metrics_server, _ = start_http_server(port, host, self.parts.metrics.registry)
        self.metrics_address = f"{host}:{self._metrics_server.server_port}"
        self._loading = asyncio.create_task(self._load())

    async def loaded(self) -> None:
        """Return when every default model is ready or has failed."""
        if self._loading is not None:
            await self._loading

    async def _load(self) -> None:
        await asyncio.gather(*(self._load_engine(name) for name in self.parts.catalogue.engines))

    async def _load_engine(self, name: str) -> None:
        slot = self.parts.catalogue.default(name)
        await asyncio.gather(self.parts.catalogue.load(slot), return_exceptions=True)
        self.parts.metrics.models.labels(name, slot.name).set(slot.model is not None)
        ready = slot.model is not None
        await self._health.set(f"market.inference.engine.{name}", READY if ready else NOT_READY)
        if ready and not self._exchange.draining:
            for service in ("", exchange_pb2.DESCRIPTOR.services_by_name["ExchangeService"].full_name):
                await self._health.set(service, READY)

    async def stop(self) -> None:
        """Fail readiness, refuse new work, finish what is in flight within the grace time, then end."""
        await self._health.enter_graceful_shutdown()
        try:
            async with asyncio.timeout(self._config.drain_seconds):
                await self._exchange.drain()
        except TimeoutError:
            log.warning("drain timed out", extra={"fields": {"in_flight": self._exchange.in_flight}})
        await self._server.stop(0.5)
        if self._loading is not None:
            self._loading.cancel()
        self._metrics_server.shutdown()
        self._metrics_server.server_close()
        self.parts.close()
