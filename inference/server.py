"""The gRPC server of the inference service.

Owns the transport and the order of start and stop. build.py wires the parts; main.py reads the configuration.
"""

import asyncio
import functools
import logging
import socket

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inference.build import VERSION, Components, build
from inference.calls.admin import Admin
from inference.calls.records import Records
from inference.config import Config
from inference.device import device_profile
from inference.loading.sentiment import SentimentLoader
from inference.traces import TracedExchange
from inference.transport.exchange import SERVICE, Exchange
from inference.transport.local import LocalServer
from market_inference.contract import deadline
from market_inference.contract.generated import admin_pb2_grpc, profile_pb2
from runtime import tls
from runtime.health import LIVE, Health
from runtime.listen import NO_COMPRESSION, bind, exchange_path
from runtime.metrics.scrape import MetricsServer
from runtime.profiling.server import ProfileServer, Take
from runtime.tasks import Tasks
from runtime.tracing import Traces
from runtime.watcher import WatcherCollector

log = logging.getLogger(__name__)

READY = health_pb2.HealthCheckResponse.SERVING
NOT_READY = health_pb2.HealthCheckResponse.NOT_SERVING
_SERVICES = ("", SERVICE.full_name)
# Seconds between two looks at the certificates.
LOOK_SECONDS = 1.0
# Streams that are open after the drain end within this time.
STOP_SECONDS = 0.5
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),  # the gateway has checked sizes; a frame carries many requests
    ("grpc.max_send_message_length", -1),
    NO_COMPRESSION,
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5000),
    # A gateway that does not answer a ping is gone: its stream ends, and with it its requests and sessions.
    ("grpc.keepalive_time_ms", 5000),
    ("grpc.keepalive_timeout_ms", 5000),
    # This bound, 60 s by default, applies to keepalive pings, too.
    ("grpc.http2.ping_timeout_ms", 5000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)


class Server:
    """Listens at once, and reports an engine ready when the default model is loaded.

    Raises runtime.extra.ExtraMissingError.
    """

    def __init__(self, config: Config, load_sentiment: SentimentLoader | None = None) -> None:
        self._config = config
        instance = config.name or socket.gethostname()
        self._traces = Traces.of(config.otlp_endpoint, config.trace_ratio, "inference", VERSION, instance)
        self.parts = build(config, self._traces, load_sentiment)
        records = Records(self.parts.metrics)
        serving = (self.parts.servicer, self.parts.sessions, self.parts.queued_seconds, records.add)
        self._exchange = Exchange(*serving) if self._traces is None else TracedExchange(self._traces, *serving)
        self.parts.servicer.memory.unsent = lambda: self._exchange.unsent_bytes
        self.parts.metrics.in_flight.set_function(lambda: self._exchange.in_flight)
        self._local = LocalServer(self._exchange)
        self._profiles = _profiles(config, self.parts)
        self._health = Health()
        self._server = grpc.aio.server(options=CHANNEL_OPTIONS)
        self._tls = tls.Files(config.tls_certificate, config.tls_key, config.tls_client_ca)
        self._loading: asyncio.Task[None] | None = None
        self._housekeeping: list[asyncio.Task[None]] = []
        self._reports = Tasks()
        # Engines whose default model was loaded.
        self._loaded: set[str] = set()
        self._stopping = False
        for name in self.parts.catalog.engines:
            for tracks in self.parts.tracks_of(name):
                tracks.on_stuck(functools.partial(self._stuck_changed, name))
        self.address = ""
        self.metrics_address = ""

    async def start(self) -> None:
        """Listen, then load the models in the background. Raises CannotListenError and TlsError."""
        self._server.add_generic_rpc_handlers((self._exchange.handler(),))
        admin_pb2_grpc.add_AdminServiceServicer_to_server(Admin(self.parts.catalog), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        await self._health.set("", NOT_READY)
        await self._health.set(LIVE, READY)
        self.address = bind(functools.partial(tls.add_port, self._server, self._tls), self._config.listen)
        if path := exchange_path(self.address):
            await self._local.start(path)
        self._scraped = MetricsServer(self._config.metrics_listen, self.parts.metrics.registry)
        self.metrics_address = self._scraped.address
        if self._profiles is not None:
            await self._profiles.start()
        await self._server.start()
        self._loading = asyncio.create_task(self._load())
        watchers = [tls.watcher(self._tls, LOOK_SECONDS)] if self._tls else []
        if self.parts.registry is not None:
            watchers.append(self.parts.registry.watcher(self._config.registry_interval))
        self.parts.metrics.registry.register(WatcherCollector("inference", watchers))
        self._housekeeping += [asyncio.create_task(watcher.run()) for watcher in watchers]
        if self._config.idle_unload_seconds:
            self._housekeeping.append(asyncio.create_task(self._unload_idle(self._config.idle_unload_seconds)))

    async def _unload_idle(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds / 4)
            self.parts.catalog.unload_idle(seconds)

    async def _load(self) -> None:
        await asyncio.gather(*(self._load_engine(name) for name in self.parts.catalog.engines))

    async def _load_engine(self, name: str) -> None:
        slot = self.parts.catalog.default(name)
        await asyncio.gather(self.parts.catalog.load(slot), return_exceptions=True)
        if slot.model is not None:
            self._loaded.add(name)
        await self._report_health(name)

    async def _report_health(self, name: str) -> None:
        """An engine is ready if the default model was loaded and no thread of its requests is stuck.

        The service is ready if an engine is.
        """
        if self._stopping:
            return
        ready = {name for name in self._loaded if not any(one.stuck for one in self.parts.tracks_of(name))}
        await self._health.set(_health_of(name), READY if name in ready else NOT_READY)
        if ready or self._loaded:
            for service in _SERVICES:
                await self._health.set(service, READY if ready else NOT_READY)

    def _stuck_changed(self, name: str) -> None:
        self._reports.spawn(self._report_health(name))

    async def stop(self) -> None:
        """Fail readiness, refuse new requests, complete those in flight within the drain time, then end."""
        self._stopping = True
        until = deadline.after(self._config.drain_seconds)
        if self._loading is not None:
            self._loading.cancel()
        for service in (*_SERVICES, *map(_health_of, self.parts.catalog.engines)):
            await self._health.set(service, NOT_READY)
        try:
            async with asyncio.timeout(self._config.drain_seconds):
                await self._exchange.drain()
        except TimeoutError:
            log.warning("drain timed out", extra={"fields": {"in_flight": self._exchange.in_flight}})
        await asyncio.gather(self._server.stop(STOP_SECONDS), self._local.stop(STOP_SECONDS))
        for task in self._housekeeping:
            task.cancel()
        if self._profiles is not None:
            await self._profiles.stop()
        if self._traces is not None:
            await self._traces.close(until)
        self._scraped.close()
        self.parts.close()


def _health_of(engine: str) -> str:
    """The name of one engine's gRPC health service."""
    return f"market.inference.engine.{engine}"


def _profiles(config: Config, parts: Components) -> ProfileServer | None:
    if not config.profile_listen:
        return None
    device: dict[int, Take] = {profile_pb2.PROFILE_KIND_DEVICE: functools.partial(device_profile.take, parts.engines)}
    return ProfileServer(config.profile_listen, "MARKET_INFERENCE_PROFILE_LISTEN", device)
