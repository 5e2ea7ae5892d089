"""One worker: the HTTP server and the loops, from start to drain."""

import asyncio
import contextlib
import logging
import socket

import uvicorn

from runtime.listen import bind, split
from runtime.watcher import Watcher
from training.plane import sweep
from training.plane.app import application
from training.plane.build import Access, build
from training.plane.checker import Checker
from training.plane.config import Config
from training.plane.duty import Duties
from training.plane.loops import Loops
from training.plane.reconciler import Plane, Reconciler
from training.plane.services import worker_name

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_DRAIN_SECONDS = 10


class Server:
    """As runtime/process.py wants it."""

    def __init__(self, config: Config) -> None:
        """Raises build.ConfigurationError, runtime.listen.CannotListenError."""
        self._socket = listening(config) if config.socket < 0 else socket.socket(fileno=config.socket)
        self.address = f"{split(config.listen)[0]}:{self._socket.getsockname()[1]}"
        self.metrics_address = self.address
        self._config = config.model_copy(update={"listen": self.address})

    async def start(self) -> None:
        """Migrate, listen, and begin to look for work."""
        self._access = Access(self._config)
        if self._access.tokens is not None:
            await self._access.tokens.refresh()
        self._services = await asyncio.to_thread(build, self._config, self._access)
        self._loops = self._make_loops()
        settings = uvicorn.Config(
            application(self._services),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            limit_concurrency=self._config.max_connections,
            timeout_graceful_shutdown=_DRAIN_SECONDS,
        )
        self._http = _Http(settings)
        self._tasks = [asyncio.create_task(self._http.serve(sockets=[self._socket]))]
        await self._http.up.wait()
        self._tasks += [asyncio.create_task(watcher.run()) for watcher in self._watchers()]
        self._loops.start()

    def _make_loops(self) -> Loops:
        services, worker = self._services, worker_name()
        plane = Plane(self._config.name, self._config.url, self._config.max_machines)
        duties = Duties(services.store, sweep.duties(services), worker, services.clock)
        duties.declare()
        return Loops(
            self._config.poll_seconds,
            jobs=Reconciler(services.store, services.launcher, plane, worker, services.clock).turn,
            datasets=Checker(services.store, services.objects, worker, services.clock).turn,
            duties=duties.turn,
        )

    def _watchers(self) -> list[Watcher]:
        found = [Watcher("keys", self._look_at_keys, interval=_LOOK_SECONDS)]
        if self._access.tokens is not None:
            found.append(Watcher("key_set", self._access.tokens.look, interval=_LOOK_SECONDS))
        return found

    async def _look_at_keys(self) -> None:
        self._access.refresh()

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


class _Http(uvicorn.Server):
    """uvicorn without its own signal handlers (runtime/process.py has those), and with an event for the start."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept requests."""
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


def listening(config: Config) -> socket.socket:
    """A socket that listens at the configured address. Raises CannotListenError."""
    made = socket.socket(socket.AF_INET6 if "[" in config.listen else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    def listen(address: str) -> int:
        made.bind(split(address))
        made.listen(1024)
        return int(made.getsockname()[1])

    bind(listen, config.listen)
    return made
