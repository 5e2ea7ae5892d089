"""One worker's claims on the rows of one table.

Owns the way back of a lease. After an error of the database or the object store a worker cannot release its row at
once: the worker releases the row with its next claim, so that no worker waits for the lease to end. After a bug the
lease stays until its end, so that a broken row does not keep the worker busy.
"""

import contextlib
import logging
from collections.abc import Callable
from typing import Any

from sqlalchemy import Row, Table
from sqlalchemy.exc import DBAPIError

from runtime.logs import fields
from training.plane import database
from training.plane.clock import Clock
from training.plane.database import Database, Lease, LeaseLostError
from training.plane.objects import ObjectsAwayError

log = logging.getLogger(__name__)

_AGAIN_SECONDS = 1.0


class Claims:
    """The rows that are due, one in each turn(); the work releases its row with database.release.

    `only`: the keys of the rows that come into question; None for all. `by_owner`: the owners of due rows take turns,
    since the work on a row takes minutes.
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
    ) -> None:
        self._store = store
        self._table = table
        self._worker = worker
        self._clock = clock
        self._only = only
        self._by_owner = by_owner
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
            work(row, lease)
        except LeaseLostError:
            log.warning("row taken over by another worker", extra=fields(table=self._table.name, row=lease.id))
        except (DBAPIError, ObjectsAwayError):
            self._owed.append(lease)
            raise
        return True

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
