"""The gateway put together and put on a socket.

Owns the wiring in build(), the transport, and the order of starting and stopping. main.py reads the configuration and
the signals.
"""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from gateway.auth import Authenticator
from gateway.budget import Budget, Limits, LocalBudget
from gateway.config import Config
from gateway.discovery import Discovery, Endpoint
from gateway.limits import InFlight
from gateway.metrics import Metrics
from gateway.replica import Replica, Settings
from gateway.router import Router
from gateway.security import ConfigurationError, Security
from gateway.servicer import Servicer
from wire import contract, tls
from wire.contract import Method
from wire.listen import bind
from wire.scrape import MetricsServer

log = logging.getLogger(__name__)

READY = health_pb2.HealthCheckResponse.SERVING
NOT_READY = health_pb2.HealthCheckResponse.NOT_SERVING
SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", contract.MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", -1),
    # A peer that is gone is noticed; one that pings more often than this is disconnected (ENHANCE_YOUR_CALM).
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 2),
    # Headers above the first size may be refused, above the second they are.
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.absolute_max_metadata_size", 32 * 1024),
    ("grpc.max_concurrent_streams", 1024),
)
# What a connection that is asked to be made anew has for its calls in flight.
CONNECTION_GRACE_SECONDS = 300


def build(config: Config, authenticator: Authenticator, router: Router, metrics: Metrics) -> Servicer:
    """Wire everything up but the transport."""
    in_flight = InFlight(most=config.max_in_flight, most_per_client=config.max_in_flight_per_client)
    most = config.max_streams_per_client
    streams = InFlight(most=config.max_in_flight, most_per_client=most, what="streams")
    sessions = InFlight(most=config.max_sessions, most_per_client=config.max_sessions_per_client, what="sessions")
    metrics.watch(lambda: in_flight.total, lambda: sum(replica.ready for replica in router.replicas))
    return Servicer(
        authenticator,
        in_flight,
        streams,
        sessions,
        _limits(config, metrics),
        router,
        metrics,
        default_timeout=config.default_timeout,
        max_timeout=config.max_timeout,
        session_idle_seconds=config.session_idle_seconds,
        version=version("market-inference"),
    )


def _limits(config: Config, metrics: Metrics) -> Limits:
    budget: Budget = LocalBudget()
    if config.redis_url:
        # Imported here, since only this setting needs it.
        from gateway.shared_budget import SharedBudget

        shared = budget = SharedBudget(config.redis_url)
        metrics.watch_budget(lambda: shared.away)
    return Limits(
        budget,
        per_second=config.units_per_second,
        burst_seconds=config.burst_seconds,
        per_day=config.units_per_day,
    )


def _discovery(config: Config) -> Discovery:
    try:
        return Discovery(config.replicas)
    except ValueError as error:
        raise ConfigurationError(f"MARKET_GATEWAY_REPLICAS={config.replicas}: {error}") from error


def handlers(servicer: Servicer) -> grpc.GenericRpcHandler:
    """The contract's methods as gRPC handlers that pass bytes, so that nothing is parsed twice."""
    table: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {}
    for method in contract.METHODS.values():
        unary = functools.partial(servicer.unary, method)
        if method.name == "Stream":
            table[method.name] = grpc.stream_stream_rpc_method_handler(_streaming(servicer.stream, method))
        elif method.name == "Watch":
            table[method.name] = grpc.stream_stream_rpc_method_handler(_streaming(servicer.watch, method))
        else:
            table[method.name] = grpc.unary_unary_rpc_method_handler(unary)
    return grpc.method_handlers_generic_handler(contract.SERVICE.full_name, table)


def _streaming(serve: Callable[[Method, Any], Awaitable[None]], method: Method) -> Any:
    async def handler(_: Any, context: Any) -> None:  # reads and writes through the context, not by iteration
        await serve(method, context)

    return handler


def _options(config: Config) -> list[tuple[str, int]]:
    return [
        *SERVER_OPTIONS,
        ("grpc.so_reuseport", int(config.share_port)),
        ("grpc.max_connection_age_ms", int(config.max_connection_age * 1000)),
        ("grpc.max_connection_age_grace_ms", CONNECTION_GRACE_SECONDS * 1000),
    ]


class Server:
    """The gateway on a socket. Ready while at least one replica is."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._metrics = Metrics()
        self._discovery = _discovery(config)
        self.router = Router(hedge=config.hedge)
        self._security = Security(config)
        self.servicer = build(config, self._security.authenticator, self.router, self._metrics)
        self._health = health_aio.HealthServicer()
        self._server = grpc.aio.server(options=_options(config))
        self._readiness: asyncio.Task[None] | None = None
        self._fresh: asyncio.Task[None] | None = None
        self.address = ""
        self.metrics_address = ""

    async def start(self) -> None:
        """Listen and connect to the replicas. Raises CannotListenError and ConfigurationError."""
        config = self._config
        self._server.add_generic_rpc_handlers((handlers(self.servicer),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if config.reflection:
            names = (contract.SERVICE.full_name, HEALTH, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)
        self.address = bind(functools.partial(tls.add_port, self._server, self._security.files), config.listen)
        self._scraped = MetricsServer(config.metrics_listen, self._metrics.registry)
        self.metrics_address = self._scraped.address
        await self._security.start()
        self.router.start()
        self.router.follow(self._discovery, config.discovery_interval, self._connect)
        self._fresh = asyncio.create_task(self._security.keep_fresh(lambda: self.router.renew(self._connect)))
        self._readiness = asyncio.create_task(self._tell_readiness())
        await self._server.start()

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

    async def _tell_readiness(self) -> None:
        while True:
            change = self.router.next_change()
            ready = READY if self.router.ready else NOT_READY
            for service in ("", contract.SERVICE.full_name):
                await self._health.set(service, ready)
            await change.wait()

    async def stop(self) -> None:
        """Fail readiness, refuse new work, finish what is in flight within the grace time, then end."""
        for task in (self._readiness, self._fresh):
            if task is not None:
                task.cancel()
        await self._health.enter_graceful_shutdown()
        self.servicer.drain()
        await self._server.stop(self._config.drain_seconds)
        await self.router.close()
        self._scraped.close()
