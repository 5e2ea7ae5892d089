"""Several gateway processes on one port (SO_REUSEPORT), with an event loop and a core per process.

Owns the processes (start, replacement of a dead process, common end) and the /metrics of all workers together.
"""

import asyncio
import json
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

from gateway.access.tokens import copy_for_workers
from gateway.config import Config
from gateway.totals import Totals
from runtime import listen, process
from runtime.listen import bind, split
from runtime.logs import fields
from runtime.metrics.scrape import MetricsServer

log = logging.getLogger(__name__)

# A worker dead within this time of the start is replaced after the same time: a bad setting must not spin.
CRASH_PAUSE_SECONDS = 1.0

# Signs of life in the time after which a worker is replaced.
BEATS = 4

# The folder of this package: a worker imports from here, and from no folder named by the environment.
ROOT = Path(__file__).resolve().parents[1]


class WorkerFailedError(Exception):
    """A worker did not start."""


class _Worker:
    """One child: `python -m gateway` with the parent's settings, one worker, and metrics on loopback."""

    def __init__(self, address: str, key_set: str, ended: "queue.SimpleQueue[_Worker | None]") -> None:
        settings = {
            "MARKET_GATEWAY_WORKERS": "1",
            "MARKET_GATEWAY_SHARE_PORT": "true",
            "MARKET_GATEWAY_LISTEN": address,
            "MARKET_GATEWAY_METRICS_LISTEN": "127.0.0.1:0",
            **({"MARKET_GATEWAY_JWT_COPY": key_set} if key_set else {}),
        }
        self.began = self.heard = time.monotonic()
        self.metrics = ""
        self.ready = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "gateway"],
            env={**os.environ, **settings, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,  # closes when the parent ends, see follow_parent()
            stdout=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._watch, args=(ended,), daemon=True).start()

    def _watch(self, ended: "queue.SimpleQueue[_Worker | None]") -> None:
        with self.process.stdout or open(os.devnull) as stdout:  # noqa: PTH123
            for line in stdout:
                self.heard = time.monotonic()
                if line.strip():
                    self.metrics = json.loads(line)["metrics"]
                    self.ready.set()
            self.ready.set()
        self.process.wait()
        ended.put(self)


async def beat(seconds: float) -> None:
    """In a worker: show the parent at intervals that the event loop runs."""
    with suppress(OSError):  # without a parent the worker ends, see follow_parent()
        while True:
            os.write(1, b"\n")
            await asyncio.sleep(seconds)


def follow_parent() -> None:
    """In a worker: drain and end, as after SIGTERM, once the parent has ended and stdin is closed."""

    def wait() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()


class Workers:
    """The parent of `config.workers` processes. Call run() on the main thread."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._ended: queue.SimpleQueue[_Worker | None] = queue.SimpleQueue()
        self._workers: list[_Worker] = []
        self._totals = Totals(lambda: [worker.metrics for worker in self._workers if worker.metrics])

    def run(self) -> None:
        """Serve until one of process.ending_signals(), and until all workers have drained. Raises WorkerFailedError."""
        family = socket.AF_INET6 if "[" in self._config.listen else socket.AF_INET
        with socket.socket(family) as holder, copy_for_workers(self._config.jwt_key_set) as self._key_set:
            address = bind(lambda address: _hold(holder, address), self._config.listen)
            for number in process.ending_signals():
                signal.signal(number, self._stop)
            metrics = MetricsServer(self._config.metrics_listen, self._totals).address
            try:
                self._start(address)
                listen.announce(listen=address, metrics=metrics)
                log.info("listening", extra=fields(listen=address, metrics=metrics, workers=len(self._workers)))
                threading.Thread(target=self._end_hung_workers, name="hung", daemon=True).start()
                self._replace_dead_workers(address)
            finally:
                holder.close()  # the next gateway may have the port once the workers, which drain, have left it
                self._end()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._ended.put(None)

    def _start(self, address: str) -> None:
        self._workers = [_Worker(address, self._key_set, self._ended) for _ in range(self._config.workers)]
        for worker in self._workers:
            worker.ready.wait()
            if not worker.metrics:
                raise WorkerFailedError("a worker did not start; its reason stands above")

    def _replace_dead_workers(self, address: str) -> None:
        while (dead := process.next_of(self._ended)) is not None:
            log.error("worker died", extra=fields(status=dead.process.returncode))
            self._workers.remove(dead)
            self._totals.keep_counters(dead.metrics)
            if time.monotonic() - dead.began < CRASH_PAUSE_SECONDS:
                time.sleep(CRASH_PAUSE_SECONDS)
            self._workers.append(_Worker(address, self._key_set, self._ended))

    def _end_hung_workers(self) -> None:
        """Kill workers that show no life: the kernel goes on to give them their share of new connections."""
        seconds = self._config.worker_seconds
        while True:
            time.sleep(seconds / BEATS)
            for worker in tuple(self._workers):
                if worker.ready.is_set() and time.monotonic() - worker.heard > seconds:
                    log.error("worker does not answer", extra=fields(pid=worker.process.pid, seconds=seconds))
                    worker.process.kill()

    def _end(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.wait()


def _hold(holder: socket.socket, address: str) -> int:
    """Reserve the port for the workers. The socket is bound and never listens, so it gets no connections.

    Raises OSError where another process has the port.
    """
    listen.refuse_taken(address)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    holder.bind(split(address))
    return int(holder.getsockname()[1])
