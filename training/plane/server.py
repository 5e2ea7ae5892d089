"""One worker: the HTTP server and the loops, from start to drain."""

import asyncio
import contextlib
import logging
import socket
import sys

import uvicorn

from gateway.access.tokens import KeySetError
from runtime import process
from runtime.http_connection import HttpConnection
from runtime.http_server import HttpServer, listening
from runtime.listen import split
from runtime.watcher import Watcher
from training.plane import sweep
from training.plane.app import application
from training.plane.build import Access, build, gatekeeper, model_duties
from training.plane.checker import Checker
from training.plane.config import Config
from training.plane.duty import Duties
from training.plane.errors import ConfigurationError
from training.plane.loops import Loops
from training.plane.reconciler import Plane, Reconciler
from training.plane.services import worker_name

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_DRAIN_SECONDS = 10
BACKLOG = 1024
_SWITCH_SECONDS = 0.0005
"""So long a thread that computes, such as a check, keeps the event loop waiting; Python has 5 ms."""


class Server:
    """As runtime/process.py wants it."""

    def __init__(self, config: Config) -> None:
        """Raises build.ConfigurationError, runtime.listen.CannotListenError."""
        self._socket = (
            listening(config.listen, backlog=BACKLOG) if config.socket < 0 else socket.socket(fileno=config.socket)
        )
        self.address = f"{split(config.listen)[0]}:{self._socket.getsockname()[1]}"
        self.metrics_address = self.address
        self._config = config.model_copy(update={"listen": self.address})

    async def start(self) -> None:
        """Migrate, listen, and begin to look for work. Raises ConfigurationError."""
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._access = Access(self._config)
        if self._access.tokens is not None:
            try:
                await self._access.tokens.start()
            except KeySetError as error:
                raise ConfigurationError(f"MARKET_TRAINING_JWT_KEY_SET: {error}") from error
        self._services = await asyncio.to_thread(build, self._config, self._access)
        self._loops = self._make_loops()
        settings = uvicorn.Config(
            application(self._services),
            http=HttpConnection,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            limit_concurrency=process.connections(self._config.max_connections),
            timeout_graceful_shutdown=_DRAIN_SECONDS,
        )
        self._http = HttpServer(settings)
        self._tasks = [asyncio.create_task(self._http.serve(sockets=[self._socket]))]
        await self._http.up.wait()
        self._tasks += [asyncio.create_task(watcher.run()) for watcher in self._watchers()]
        self._loops.start()

    def _make_loops(self) -> Loops:
        services, worker = self._services, worker_name()
        plane = Plane(self._config.url, self._config.max_machines, self._config.budget_usd)
        known = {**sweep.duties(services), **model_duties(services)}
        duties, reaper = (
            Duties(services.store, some, worker, services.clock) for some in (known, sweep.reaper(services))
        )
        duties.declare()
        reaper.declare()
        return Loops(
            self._config.poll_seconds,
            jobs=Reconciler(services.store, services.machines, plane, worker, services.clock).turn,
            datasets=Checker(services.store, services.objects, worker, services.clock).turn,
            duties=duties.turn,
            reaper=reaper.turn,
            versions=gatekeeper(services, worker).turn,
        )

    def _watchers(self) -> list[Watcher]:
        found = [Watcher("keys", self._access.look, interval=_LOOK_SECONDS)]
        if self._access.tokens is not None:
            found.append(Watcher("key_set", self._access.tokens.look, interval=_LOOK_SECONDS))
        return found

    async def stop(self) -> None:
        """Stop looking for work, let requests end, close the store. Machines go on."""
        await asyncio.to_thread(self._loops.stop)
        self._http.should_exit = True
        await self._tasks[0]
        for task in self._tasks[1:]:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._services.store.close()
