"""The gateway's parts, wired together, and the server.

Owns the wiring in build(), the choice of the transport, and the order of start and stop. main.py reads the
configuration; runtime/process.py handles the signals.
"""

import asyncio
import logging
from importlib.metadata import version

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from gateway import workers
from gateway.access.auth import Authenticator
from gateway.access.budget import Budget, Limits, LocalBudget
from gateway.access.probes import Probes
from gateway.access.reflection import Reflection
from gateway.access.security import ConfigurationError, Security
from gateway.calls.servicer import Servicer
from gateway.config import Config
from gateway.metrics import Metrics
from gateway.replicas.discovery import Discovery, Endpoint
from gateway.replicas.replica import Replica, Settings
from gateway.replicas.router import Router
from gateway.transport.grpcio import GrpcioTransport
from gateway.transport.interface import Register, Transport
from gateway.transport.native import NativeTransport
from market_inference.contract import deadline, methods
from market_inference.contract.validation import explain, fast
from runtime import tls
from runtime.extra import ExtraMissingError
from runtime.health import LIVE, Health
from runtime.listen import bind, is_loopback
from runtime.logs import fields
from runtime.metrics.scrape import MetricsServer
from runtime.profiling.server import ProfileServer
from runtime.tracing import Traces
from runtime.watcher import WatcherCollector

log = logging.getLogger(__name__)

VERSION = version("market-inference")
READY = health_pb2.HealthCheckResponse.SERVING
NOT_READY = health_pb2.HealthCheckResponse.NOT_SERVING


def build(
    config: Config, authenticator: Authenticator, router: Router, metrics: Metrics, traces: Traces | None = None
) -> Servicer:
    """Wire all parts but the transport."""
    metrics.watch_replicas(lambda: router.replicas)
    metrics.build.labels(VERSION).set(1)
    limits = _limits(config, metrics)
    return Servicer(config, authenticator, limits, router, metrics, version=VERSION, traces=traces)


def _limits(config: Config, metrics: Metrics) -> Limits:
    budget: Budget = LocalBudget()
    if config.redis_url:
        # Imported here: only this setting needs the module.
        from gateway.access.shared_budget import SharedBudget

        shared = budget = SharedBudget(config.redis_url)
        metrics.watch_budget(lambda: shared.away)
    return Limits(
        budget,
        per_second=config.units_per_second,
        burst_seconds=config.burst_seconds,
        per_day=config.units_per_day,
    )


def _profiles(config: Config) -> ProfileServer | None:
    if not config.profile_listen:
        return None
    return ProfileServer(config.profile_listen, "MARKET_GATEWAY_PROFILE_LISTEN", {}, shared=config.share_port)


def _discovery(config: Config) -> Discovery:
    try:
        return Discovery(config.replicas)
    except ValueError as error:
        raise ConfigurationError(f"MARKET_GATEWAY_REPLICAS={config.replicas}: {error}") from error


def _transport(config: Config, servicer: Servicer, register: Register, files: tls.Files) -> Transport:
    if config.transport == "native":
        return _native(config, servicer, register)
    age = config.max_connection_age
    return GrpcioTransport(servicer, register, files=files, share_port=config.share_port, max_connection_age=age)


def _native(config: Config, servicer: Servicer, register: Register) -> Transport:
    """Raises ConfigurationError for a setting that the native transport does not have, or ExtraMissingError."""
    for name in ("tls_certificate", "tls_client_ca", "max_connection_age"):
        if name in config.model_fields_set and getattr(config, name):
            raise ConfigurationError(
                f"MARKET_GATEWAY_{name.upper()} needs MARKET_GATEWAY_TRANSPORT=grpcio: the native transport speaks no "
                "TLS and has no maximum connection age; a proxy in front of the gateway must provide both"
            )
    if not (is_loopback(config.listen) or config.bodies_bounded_in_front):
        raise ConfigurationError(
            f"MARKET_GATEWAY_LISTEN={config.listen} is open to other machines, and MARKET_GATEWAY_TRANSPORT=native "
            "holds a message of any size in memory before it can be refused: let a proxy in front refuse "
            f"messages above {methods.MAX_REQUEST_BYTES} bytes, and confirm it with "
            "MARKET_GATEWAY_BODIES_BOUNDED_IN_FRONT=true"
        )
    try:
        return NativeTransport(servicer, register, share_port=config.share_port)
    except ModuleNotFoundError as error:
        raise ExtraMissingError("MARKET_GATEWAY_TRANSPORT=native", "native") from error


class Server:
    """The gateway on a socket. Ready while at least one replica is ready.

    Raises ConfigurationError and runtime.extra.ExtraMissingError.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._metrics = Metrics()
        self._discovery = _discovery(config)
        self.router = Router()
        self._security = Security(config)
        self._traces = Traces.of(config.otlp_endpoint, config.trace_ratio, "gateway", VERSION)
        self._profiles = _profiles(config)
        self._health = Health()
        self._probes = Probes(self._health)
        self._reflection = Reflection((methods.SERVICE.full_name, HEALTH, reflection.SERVICE_NAME))
        self.servicer = build(config, self._security.authenticator, self.router, self._metrics, self._traces)
        self._transport = _transport(config, self.servicer, self._register, self._security.files)
        self._readiness: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None
        self._watchers = self._security.watchers(lambda: self.router.renew(self._connect))
        self._metrics.registry.register(WatcherCollector("gateway", self._watchers))
        self._watching: list[asyncio.Task[None]] = []
        self.address = ""
        self.metrics_address = ""

    async def start(self) -> None:
        """Listen and connect to the replicas. Raises CannotListenError and ConfigurationError."""
        config = self._config
        explain.prepare(method.request for method in methods.METHODS.values())
        for request, rule in fast.uncovered().items():
            log.info("requests of this type always take the slow check", extra=fields(type=request, rule=rule))
        self.address = bind(self._transport.add_port, config.listen)
        self._scraped = MetricsServer(config.metrics_listen, self._metrics.registry)
        self.metrics_address = self._scraped.address
        await self._set_health(NOT_READY)
        await self._health.set(LIVE, READY)
        if self._profiles is not None:
            await self._profiles.start()
        await self._security.start()
        self.router.start()
        self.router.follow(self._discovery, config.discovery_interval, self._connect)
        self._watching = [asyncio.create_task(watcher.run()) for watcher in self._watchers]
        self._readiness = asyncio.create_task(self._report_readiness())
        if config.share_port:
            self._beating = asyncio.create_task(workers.beat(config.worker_seconds / workers.BEATS))
        await self._transport.start()

    def _register(self, server: grpc.aio.Server) -> None:
        server.add_generic_rpc_handlers((self._probes,))
        if self._config.reflection:
            reflection_pb2_grpc.add_ServerReflectionServicer_to_server(self._reflection, server)

    def _connect(self, endpoint: Endpoint) -> Replica:
        config = self._config
        settings = Settings(
            streams=config.streams_per_replica,
            health_interval=config.health_interval,
            health_timeout=config.health_timeout,
            most_in_flight=config.max_in_flight_per_replica,
            credentials=self._security.replica_credentials(),
        )
        return Replica(endpoint, self.router.changed, settings)

    async def _report_readiness(self) -> None:
        while True:
            change = self.router.next_change()
            await self._set_health(READY if self.router.takes_work else NOT_READY)
            await change.wait()

    async def _set_health(self, ready: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for service in ("", methods.SERVICE.full_name):
            await self._health.set(service, ready)

    async def stop(self) -> None:
        """Fail readiness, refuse new calls, finish the calls in flight within the grace time, then end."""
        until = deadline.after(self._config.drain_seconds)
        for task in (self._readiness, *self._watching):
            if task is not None:
                task.cancel()
        await self._set_health(NOT_READY)
        self.servicer.drain()
        await self._transport.stop(self._config.drain_seconds)
        await self.router.close()
        if self._profiles is not None:
            await self._profiles.stop()
        if self._traces is not None:
            await self._traces.close(until)
        self._scraped.close()
        if self._beating is not None:
            self._beating.cancel()
