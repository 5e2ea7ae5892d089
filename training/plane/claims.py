"""One worker's claims on the rows of one table.

Owns the way back of a lease. After an error of the database or the object store a worker cannot release its row at
once: the worker releases the row with its next claim, so that no worker waits for the lease to end. After a bug the row
waits, longer after each try, so that a broken row does not keep the worker busy. A row whose tries are used up is given
up: a worker that ends with its row has used up a try as well.
"""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, Table
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from runtime.logs import fields
from training.plane import database
from training.plane.clock import Clock
from training.plane.database import Database, Lease, LeaseLostError
from training.plane.objects import ObjectsAwayError

log = logging.getLogger(__name__)

AWAY: Final = (DBAPIError, PoolTimeoutError, ObjectsAwayError)
"""The store or the objects are away: another time goes better."""
REFUSED: Final = (DataError, IntegrityError, ProgrammingError)
"""Of the errors of a database these come each time: a value or a statement that the database refuses."""
_AGAIN_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Bound:
    """How often a row is tried, and what ends the row: `give_up` releases the row, with the reason."""

    tries: int
    give_up: Callable[[Row[Any], Lease, str], None]


class Claims:
    """The rows that are due, one in each turn(); the work releases its row with database.release.

    `only`: the keys of the rows that come into question; None for all. `by_owner`: the owners of due rows take turns,
    since the work on a row takes minutes. `bound`: of a table with a column `tries`; without a bound, the lease of a
    row with a bug stays until its end.
    """

    def __init__(
        self,
        store: Database,
        table: Table,
        worker: str,
        clock: Clock,
        only: tuple[str, ...] | None = None,
        *,
        by_owner: bool = False,
        bound: Bound | None = None,
    ) -> None:
        self._store = store
        self._table = table
        self._worker = worker
        self._clock = clock
        self._only = only
        self._by_owner = by_owner
        self._bound = bound
        self._owed: list[Lease] = []

    def turn(self, work: Callable[[Row[Any], Lease], None]) -> bool:
        """Work on the row that is due first; False when no row is due.

        A lease lost to another worker is logged; other errors of `work` are raised. Raises DBAPIError.
        """
        claimed = self._take()
        if claimed is None:
            return False
        row, lease = claimed
        try:
            self._try(row, lease, work)
        except LeaseLostError:
            log.warning("row taken over by another worker", extra=fields(table=self._table.name, row=lease.id))
        except Exception as error:
            if isinstance(error, AWAY) and not isinstance(error, REFUSED):
                self._owed.append(lease)
            elif self._bound is not None:
                self._pause(row, lease)
            raise
        return True

    def _try(self, row: Row[Any], lease: Lease, work: Callable[[Row[Any], Lease], None]) -> None:
        if self._bound is None:
            work(row, lease)
        elif row.tries <= self._bound.tries:
            if row.tries > 1:
                log.warning("row tried again", extra=fields(table=self._table.name, row=lease.id, tries=row.tries - 1))
            work(row, lease)
        else:
            log.error("row given up", extra=fields(table=self._table.name, row=lease.id, tries=row.tries - 1))
            why = f"{row.tries - 1} tries ended without an answer; the log of the plane has the error"
            self._bound.give_up(row, lease, why)

    def _pause(self, row: Row[Any], lease: Lease) -> None:
        due = database.later(self._clock.now(), _FIRST_PAUSE_SECONDS * 2.0 ** min(row.tries - 1, 10))
        with contextlib.suppress(LeaseLostError, *AWAY), self._store.begin() as connection:
            database.release(connection, lease, due, tries=row.tries)

    def _take(self) -> tuple[Row[Any], Lease] | None:
        """The row that is due first, with its lease; None when no row is due."""
        while self._owed:
            with contextlib.suppress(LeaseLostError), self._store.begin() as connection:
                database.release(connection, self._owed[-1], self._clock.now() + _AGAIN_SECONDS)
            self._owed.pop()
        with self._store.read() as connection:
            if not database.is_due(connection, self._table, self._clock.now(), self._only):
                return None
        with self._store.begin() as connection:
            found = database.claim(connection, self._table, self._worker, self._clock.now(), self._only)
            if found is not None and self._by_owner:
                database.put_behind(connection, self._table, found[0]._mapping["owner"], self._clock.now())
            return found
