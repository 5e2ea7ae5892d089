"""Scheduled work, claimed like jobs: one worker does each due duty.

Owns the schedule. The work of the duties belongs to sweep.py.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from sqlalchemy import insert, update
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from runtime.logs import fields
from training.plane import database
from training.plane.claims import Claims
from training.plane.clock import Clock
from training.plane.database import Database, Lease
from training.plane.schema import duties

log = logging.getLogger(__name__)

MOST_FAILURES: Final = 10
_MOST_ERROR_CHARACTERS = 500
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Duty:
    """Work to be done every so many seconds. `work` may be repeated and may be cut off at any line."""

    seconds: float
    work: Callable[[], None]


class UndoneError(Exception):
    """The work on some rows failed; the log has the errors, the text has the first one."""


def each(rows: Iterable[T], work: Callable[[T], None]) -> None:
    """Do the work on every row: a row with a bug, or whose object cannot be reached, must not stop the rows behind it.

    Ends early after MOST_FAILURES, when the store or a platform is away. Raises UndoneError at the end, DBAPIError.
    """
    failures: list[Exception] = []
    for row in rows:
        try:
            work(row)
        except (OperationalError, InterfaceError, PoolTimeoutError):
            raise
        except Exception as error:
            log.exception("row of a duty failed")
            failures.append(error)
            if len(failures) >= MOST_FAILURES:
                break
    if failures:
        raise UndoneError(f"{len(failures)} rows, the first: {failures[0]!r}") from failures[0]


class Duties:
    """One thread's hands for some duties. Rows of other duties stay as the rows are."""

    def __init__(self, store: Database, known: Mapping[str, Duty], worker: str, clock: Clock) -> None:
        self._store = store
        self._known = known
        self._clock = clock
        self._claims = Claims(store, duties, worker, clock, only=tuple(known))

    def declare(self) -> None:
        """Write new duties down, and make duties due again after an older release gave the duties up."""
        for name in self._known:
            try:
                with self._store.begin() as connection:
                    connection.execute(insert(duties).values(name=name, due_at=0.0))
            except IntegrityError:  # known already
                given_up = (duties.c.name == name, duties.c.due_at.is_(None), duties.c.lease_token.is_(None))
                with self._store.begin() as connection:
                    connection.execute(update(duties).where(*given_up).values(due_at=0.0))

    def turn(self) -> bool:
        """Do one duty that is due. Whether there was one."""
        return self._claims.turn(lambda _, lease: self._do(lease))

    def _do(self, lease: Lease) -> None:
        duty = self._known[lease.id]
        try:
            duty.work()
            done: dict[str, object] = {"last_ok_at": self._clock.now(), "last_error": ""}
        except Exception as error:  # the next time may go better, and the others must go on
            log.exception("duty failed", extra=fields(duty=lease.id))
            done = {"last_error": f"{type(error).__name__}: {error}"[:_MOST_ERROR_CHARACTERS]}
        with self._store.begin() as connection:
            database.release(connection, lease, database.later(self._clock.now(), duty.seconds), **done)
