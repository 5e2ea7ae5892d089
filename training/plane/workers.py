"""Several processes of the plane on one listening socket.

Owns the processes: start, replacement of a dead process, and common end. Only the store is shared.
"""

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from gateway.access.tokens import copy_for_workers
from runtime import listen, process
from runtime.http_server import listening
from runtime.logs import fields
from training.plane.config import Config
from training.plane.server import BACKLOG

log = logging.getLogger(__name__)

# A worker that dies sooner than this is replaced after this pause.
CRASH_PAUSE_SECONDS = 1.0
ROOT = Path(__file__).resolve().parents[2]


class WorkerFailedError(Exception):
    """A worker did not start."""


class Workers:
    """The parent of `config.workers` processes. Call run() on the main thread."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._ended: queue.SimpleQueue[_Worker | None] = queue.SimpleQueue()
        self._workers: list[_Worker] = []

    def run(self) -> None:
        """Serve until one of process.ending_signals(). Raises WorkerFailedError, CannotListenError."""
        key_set = copy_for_workers(self._config.jwt_key_set)
        with listening(self._config.listen, backlog=BACKLOG) as held, key_set as self._key_set:
            host, _ = listen.split(self._config.listen)
            address = f"{host}:{held.getsockname()[1]}"
            for number in process.ending_signals():
                signal.signal(number, self._stop)
            try:
                self._workers = [self._started(held.fileno(), address) for _ in range(self._config.workers)]
                for worker in self._workers:
                    worker.wait_ready()
                listen.announce(listen=address, metrics=address)
                log.info("listening", extra=fields(listen=address, workers=len(self._workers)))
                while (dead := process.next_of(self._ended)) is not None:
                    self._replace(dead, held.fileno(), address)
            finally:
                for worker in self._workers:
                    worker.process.terminate()
                for worker in self._workers:
                    worker.process.wait()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._ended.put(None)

    def _replace(self, dead: "_Worker", descriptor: int, address: str) -> None:
        log.error("worker died", extra=fields(status=dead.process.returncode))
        self._workers.remove(dead)
        if time.monotonic() - dead.began < CRASH_PAUSE_SECONDS:
            time.sleep(CRASH_PAUSE_SECONDS)
        self._workers.append(self._started(descriptor, address))

    def _started(self, descriptor: int, address: str) -> "_Worker":
        return _Worker(descriptor, address, self._key_set, self._ended)


class _Worker:
    """One child: `python -m training.plane` with the parent's settings and the parent's socket."""

    def __init__(self, descriptor: int, address: str, key_set: str, ended: "queue.SimpleQueue[_Worker | None]") -> None:
        settings = {
            "MARKET_TRAINING_WORKERS": "1",
            "MARKET_TRAINING_SOCKET": str(descriptor),
            "MARKET_TRAINING_LISTEN": address,
            **({"MARKET_TRAINING_JWT_COPY": key_set} if key_set else {}),
        }
        self.began = time.monotonic()
        self._ready: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "training.plane"],
            env={**os.environ, **settings, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,  # its other end is the parent's life, see follow_parent()
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=(descriptor,),
        )
        threading.Thread(target=self._watch, args=(ended,), daemon=True).start()

    def wait_ready(self) -> None:
        """Return once the worker serves. Raises WorkerFailedError."""
        line = self._ready.get()
        if not line or "listen" not in json.loads(line):
            raise WorkerFailedError("a worker did not start; its reason stands above")

    def _watch(self, ended: "queue.SimpleQueue[_Worker | None]") -> None:
        stdout = self.process.stdout
        if stdout is None:
            raise RuntimeError("the child was started without a pipe")
        with stdout:
            self._ready.put(stdout.readline())
            for _ in stdout:
                pass
        self.process.wait()
        ended.put(self)


def follow_parent() -> None:
    """In a worker: end, as by SIGTERM, once the parent that holds the other end of stdin is gone."""

    def wait() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()
