"""The edge on a socket: wiring, start and drain. runtime/process.py handles the signals."""

import asyncio
import contextlib
import logging
from importlib.metadata import version

import uvicorn

from edge.admission import MESSAGE_BYTES, Admission
from edge.app import Components, application
from edge.config import Config
from edge.metrics import Metrics
from edge.routes.health import Health
from edge.upstream import Upstream
from edge.websocket import counted
from market_inference.contract.regular_file import opened
from runtime import http_connection, process, tls
from runtime.http_server import HttpServer, listening
from runtime.listen import is_loopback
from runtime.metrics.scrape import MetricsServer
from runtime.tracing import Traces
from runtime.watcher import Watcher, WatcherCollector

log = logging.getLogger(__name__)

VERSION = version("market-inference")
_CONNECT_SECONDS = 5.0
_KEEP_ALIVE_SECONDS = 75
_BACKLOG = 2048
_LOOK_SECONDS = 1.0


class ConfigurationError(ValueError):
    """A configuration that would leave a door open."""


class Server:
    """As runtime/process.py wants it.

    Raises ConfigurationError, ArgumentError, CannotListenError, ExtraMissingError.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        own_key = _own_key(config)
        _check_plaintext(config)
        try:
            self._own = tls.Files(config.tls_certificate, config.tls_key)
            self._to_gateway = tls.Files(config.gateway_tls_certificate, config.gateway_tls_key, config.gateway_tls_ca)
            self._upstream = Upstream(config)
            self._watchers = self._watchers_of_files()
            self._tls = tls.context(self._own) if self._own else None
        except tls.TlsError as error:
            raise ConfigurationError(str(error)) from error
        self._socket = listening(config.listen, backlog=_BACKLOG, reader_seconds=config.reader_seconds)
        self.address = f"{config.listen.rpartition(':')[0]}:{self._socket.getsockname()[1]}"
        self.metrics_address = ""
        self._metrics = Metrics()
        self._admission = admission = Admission(config, self._upstream)
        self._health = Health(self._upstream)
        self._traces = Traces.of(config.otlp_endpoint, config.trace_ratio, "edge", VERSION)
        self._metrics.registry.register(WatcherCollector("edge", self._watchers))
        self._metrics.build.labels(VERSION).set(1)
        self._metrics.watch(admission)
        self._app = application(
            Components(config, self._upstream, admission, self._health, self._metrics, self._traces, own_key, VERSION)
        )

    async def start(self) -> None:
        """Listen. A gateway that does not answer yet leaves the edge alive and not ready."""
        config = self._config
        self._scraped = MetricsServer(config.metrics_listen, self._metrics.registry)
        self.metrics_address = self._scraped.address
        settings = uvicorn.Config(
            self._app,
            http=http_connection.within(config.reader_seconds),
            ws=counted(self._admission),
            ws_max_size=MESSAGE_BYTES,
            ws_per_message_deflate=False,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            date_header=False,
            limit_concurrency=process.connections(config.max_connections),
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, round(config.drain_seconds)),
        )
        self._http = HttpServer(settings, self._tls)
        self._watching = [asyncio.create_task(watcher.run()) for watcher in self._watchers]
        self._serving = asyncio.create_task(self._http.serve(sockets=[self._socket]))
        await self._http.up.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._upstream.wait_ready(), _CONNECT_SECONDS)

    async def stop(self) -> None:
        """Fail readiness, let requests end within the grace time, then close."""
        self._health.draining = True
        self._http.should_exit = True
        for watching in self._watching:
            watching.cancel()
        await self._serving
        await self._upstream.close()
        if self._traces is not None:
            await self._traces.close(0.0)
        self._scraped.close()

    def _renew(self) -> None:
        self._http.tls = tls.context(self._own)

    def _watchers_of_files(self) -> list[Watcher]:
        """New certificates serve new connections."""
        found = []
        if self._own:
            found.append(tls.watcher(self._own, _LOOK_SECONDS, self._renew))
        if self._to_gateway:
            found.append(tls.watcher(self._to_gateway, _LOOK_SECONDS, self._upstream.renew, "gateway_certificates"))
        return found


def _own_key(config: Config) -> str:
    """The key of `key_file`. Raises ConfigurationError."""
    if config.key_file is None:
        return ""
    if not is_loopback(config.listen):
        raise ConfigurationError(
            "MARKET_EDGE_KEY_FILE would let every machine that reaches MARKET_EDGE_LISTEN use the key: "
            "listen on loopback"
        )
    try:
        with opened(config.key_file) as file:
            return file.read().decode().strip()
    except OSError as error:
        raise ConfigurationError(f"MARKET_EDGE_KEY_FILE={config.key_file}: {error.strerror}") from error


def _check_plaintext(config: Config) -> None:
    """Raises ConfigurationError."""
    if not (is_loopback(config.listen) or config.tls_certificate or config.allow_plaintext):
        raise ConfigurationError(
            f"MARKET_EDGE_LISTEN={config.listen} is open to other machines without TLS, and requests carry API keys: "
            "give MARKET_EDGE_TLS_CERTIFICATE and MARKET_EDGE_TLS_KEY, or let a proxy in front end TLS and confirm it "
            "with MARKET_EDGE_ALLOW_PLAINTEXT=true"
        )
