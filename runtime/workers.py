"""Several equal processes of a service: start, replacement of a dead process, common end.

Owns the processes. A worker says on stdout when it is ready; an empty line there is a sign of life. What the workers
share, such as a port, and the settings of a worker are the service's.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from runtime import process
from runtime.logs import fields

log = logging.getLogger(__name__)

# A worker dead within this time of the start is replaced after the same time: a bad setting must not spin.
CRASH_PAUSE_SECONDS = 1.0

# The folder of the services: a worker imports from here, and from no folder named by the environment.
ROOT = Path(__file__).resolve().parents[1]


class WorkerFailedError(Exception):
    """A worker did not start."""


class Worker:
    """One child: `python -m module` with the parent's environment, and `settings` on top."""

    def __init__(
        self,
        module: str,
        settings: Mapping[str, str],
        descriptors: Sequence[int],
        ended: "queue.SimpleQueue[Worker | None]",
    ) -> None:
        self.began = self.heard = time.monotonic()
        # The addresses of a worker that is ready, as in its ready line.
        self.addresses: dict[str, str] = {}
        self.started = threading.Event()
        self.process = subprocess.Popen(  # noqa: S603 -- our own program
            [sys.executable, "-P", "-m", module],
            env={**os.environ, **settings, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,  # closes when the parent ends, see follow_parent()
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=descriptors,
        )
        threading.Thread(target=self._watch, args=(ended,), daemon=True).start()

    def _watch(self, ended: "queue.SimpleQueue[Worker | None]") -> None:
        with self.process.stdout or open(os.devnull) as stdout:  # noqa: PTH123
            for line in stdout:
                self.heard = time.monotonic()
                if line.strip():
                    self.addresses = json.loads(line)
                    self.started.set()
            self.started.set()
        self.process.wait()
        ended.put(self)


class Workers:
    """`count` workers. `descriptors`: files of the parent that each worker has, too."""

    def __init__(self, module: str, count: int, settings: Mapping[str, str], descriptors: Sequence[int] = ()) -> None:
        self._module = module
        self._count = count
        self._settings = settings
        self._descriptors = descriptors
        self._ended: queue.SimpleQueue[Worker | None] = queue.SimpleQueue()
        self.all: list[Worker] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ready workers for the time of a block, on the main thread. Raises WorkerFailedError."""
        for number in process.ending_signals():
            signal.signal(number, lambda *_: self._ended.put(None))
        try:
            self.all = [self._start() for _ in range(self._count)]
            for worker in self.all:
                worker.started.wait()
                if not worker.addresses:
                    raise WorkerFailedError("a worker did not start; its reason stands above")
            yield
        finally:
            for worker in self.all:
                worker.process.terminate()
            for worker in self.all:
                worker.process.wait()

    def _start(self) -> Worker:
        return Worker(self._module, self._settings, self._descriptors, self._ended)

    def serve(self, on_death: Callable[[Worker], None] = lambda dead: None) -> None:
        """Replace dead workers until one of process.ending_signals()."""
        while (dead := process.next_of(self._ended)) is not None:
            log.error("worker died", extra=fields(status=dead.process.returncode))
            self.all.remove(dead)
            on_death(dead)
            if time.monotonic() - dead.began < CRASH_PAUSE_SECONDS:
                time.sleep(CRASH_PAUSE_SECONDS)
            self.all.append(self._start())


def follow_parent() -> None:
    """In a worker: drain and end, as after SIGTERM, once the parent has ended and stdin is closed."""

    def wait() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()
