"""The waiting work of sessions for one thread, in batches of some milliseconds.

Owns the batches, the errors of work, and the watch over a batch that hangs. turns.py orders the work; service.py says
what the work does.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from inference.device.engine import Engine
from inference.sessions.session import Session
from inference.sessions.turns import Turns
from market_inference.contract import deadline
from market_inference.contract.errors import InternalError, ServiceError
from runtime.foreign import contained
from runtime.logs import fields

log = logging.getLogger(__name__)

R = TypeVar("R")

BATCH_ITEMS = 256
BATCH_SECONDS = 0.01
"""Bounds of a batch."""


class _Work(NamedTuple):
    run: Callable[[float], Any]
    done: Callable[[Any], None]


class Lane:
    """Work on one engine's thread. Every method is called on the event loop's thread.

    A batch that runs longer than `stuck_seconds` makes the lane `stuck` until the batch ends, and `on_stuck()` is
    called.
    """

    def __init__(self, engine: Engine, on_stuck: Callable[[], None], stuck_seconds: float) -> None:
        self._engine = engine
        self._on_stuck = on_stuck
        self.stuck_seconds = stuck_seconds
        self.stuck = False
        self._turns: Turns[Session, _Work] = Turns()
        self._running = False
        self._dispatch_due = False

    def add(self, session: Session, run: Callable[[float], R | None], done: Callable[[R | ServiceError], None]) -> None:
        """Call `run(until)` on the engine's thread, in further batches while it returns None; then `done` here.

        `done` gets what `run` returned or the ServiceError that `run` raised, InternalError for a bug. A session that
        closes drops its work.
        """
        self._turns.add(session.client, session, _Work(run, done))
        if not self._running and not self._dispatch_due:
            self._dispatch_due = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def remove(self, session: Session) -> None:
        """Drop the waiting work of a session that has closed."""
        self._turns.remove(session.client, session)

    def _dispatch(self) -> None:
        self._dispatch_due = False
        if self._running or not self._turns:
            return
        batch = [(session, work) for _, session, work in self._turns.take(BATCH_ITEMS, BATCH_SECONDS)]
        watchdog = None
        if self.stuck_seconds < math.inf:
            watchdog = asyncio.get_running_loop().call_later(self.stuck_seconds, self._declare_stuck)
        self._running = True
        self._engine.post(lambda: self._run(batch), lambda outcomes: self._deliver(batch, watchdog, outcomes))

    def _run(self, batch: Sequence[tuple[Session, _Work]]) -> list[tuple[Any, float]]:
        """Outcomes with seconds, on the engine's thread. Work not begun within BATCH_SECONDS has no outcome."""
        outcomes: list[tuple[Any, float]] = []
        at = deadline.now()
        until = at + BATCH_SECONDS
        for session, work in batch:
            if at >= until:
                break
            outcome = None if session.closed else _outcome(session, work, until)
            ended = deadline.now()
            outcomes.append((outcome, ended - at))
            at = ended
        return outcomes

    def _deliver(
        self,
        batch: Sequence[tuple[Session, _Work]],
        watchdog: asyncio.TimerHandle | None,
        outcomes: Sequence[tuple[Any, float]],
    ) -> None:
        self._running = self.stuck = False
        if watchdog is not None:
            watchdog.cancel()
        # In front of the work that arrived meanwhile, in order.
        for session, work in reversed(batch[len(outcomes) :]):
            if not session.closed:
                self._turns.put_back(session.client, session, work)
        for (session, work), (outcome, seconds) in zip(batch, outcomes, strict=False):
            self._turns.measured(session.client, session, seconds)
            if session.closed:
                continue
            if outcome is None:
                self._turns.add(session.client, session, work, front=True)
            else:
                work.done(outcome)
        self._dispatch()

    def _declare_stuck(self) -> None:
        self.stuck = True
        self._on_stuck()


def _outcome(session: Session, work: _Work, until: float) -> Any:
    try:
        with contained:
            return work.run(until)
    except ServiceError as error:
        return error
    except Exception:  # a bug ends this session and no other
        log.exception("session failed", extra=fields(request_id=session.request_id))
        return InternalError()
