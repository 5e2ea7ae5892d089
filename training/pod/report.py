"""Reports progress from a thread of its own: a heartbeat with the newest measurements every ten seconds.

Owns that a plane that is away never stops or slows the training: a report that fails is sent again with the next one,
and the oldest measurements are dropped when too many wait. Standard library only.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from training.pod.plane import AwayError, Plane, RefusedError

SECONDS = 10.0
_TIMEOUT = 5.0
_MOST_WAITING = 10_000
_MOST_SENT = 1000


class Reporter:
    """Call start(), measure() from the training, and stop() at the end. `stopping` is set when the job shall end."""

    def __init__(self, plane: Plane, seconds: float = SECONDS) -> None:
        self._plane = plane
        self._seconds = seconds
        self._waiting: deque[dict[str, Any]] = deque(maxlen=_MOST_WAITING)
        self._step = 0
        self._progress: float | None = None
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._ended = False
        self.stopping = threading.Event()
        self.why_stopping = ""
        self._thread = threading.Thread(target=self._run, name="report", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def measure(self, step: int, total: int, values: Mapping[str, float]) -> None:
        """Note numbers at a step; never raises and never waits. Numbers that are not finite are left out."""
        now = time.time()
        with self._lock:
            self._step = max(self._step, step)
            self._progress = min(1.0, step / total) if total > 0 else None
            for name, value in values.items():
                if math.isfinite(value):
                    self._waiting.append({"name": name, "value": float(value), "step": step, "at": now})

    def stop(self) -> None:
        """Send the waiting measurements, with one try, and end the thread."""
        self._ended = True
        self._wake.set()
        self._thread.join(2 * _TIMEOUT)

    def _run(self) -> None:
        while not self._ended:
            self._send()
            self._wake.wait(self._seconds)
        while self._waiting and self._send():
            pass

    def _send(self) -> bool:
        """Whether the report was taken."""
        with self._lock:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_SENT))]
            body = {"step": self._step, "progress": self._progress, "metrics": batch}
        try:
            answer = self._plane.post("metrics", body, timeout=_TIMEOUT)
        except AwayError:
            with self._lock:
                self._waiting.extendleft(reversed(batch[: _MOST_WAITING - len(self._waiting)]))
            return False
        except RefusedError as error:
            # The attempt is over: another one may run by now, and this one must not go on.
            self._stop_training(str(error))
            return False
        if answer.get("stop"):
            self._stop_training("the job was cancelled")
        return True

    def _stop_training(self, why: str) -> None:
        self.why_stopping = why
        self.stopping.set()
