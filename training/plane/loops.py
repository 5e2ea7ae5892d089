"""The threads of a worker that look for work: jobs, datasets, duties.

Owns the pace of the threads. A thread waits and looks again when the store is away.
"""

import logging
import threading
from collections.abc import Callable

from runtime.logs import fields
from training.plane.claims import AWAY

log = logging.getLogger(__name__)

_AWAY_SECONDS = 2.0
_JOIN_SECONDS = 30.0


class Loops:
    """Calls each turn again and again: at once while there is work, else after `poll_seconds`."""

    def __init__(self, poll_seconds: float, **turns: Callable[[], bool]) -> None:
        self._poll = poll_seconds
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(name, turn), name=name, daemon=True)
            for name, turn in turns.items()
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each turn that is under way end."""
        self._ending.set()
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)

    def _run(self, name: str, turn: Callable[[], bool]) -> None:
        while not self._ending.is_set():
            try:
                pause = 0.0 if turn() else self._poll
            except AWAY as error:
                log.error("store away", extra=fields(loop=name, error=type(error).__name__))  # noqa: TRY400 -- no bug
                pause = _AWAY_SECONDS
            except Exception:  # a bug in one job's turn must not end the work on all others
                log.exception("turn failed", extra=fields(loop=name))
                pause = _AWAY_SECONDS
            self._ending.wait(pause)
