"""The checks of uploaded datasets: a worker claims a dataset, as jobs are claimed.

Owns the reading of the bytes, digest and size against the declaration, the choice of the check by kind, and the end of
checks that do not end. A check is counted before the check begins: one that raises an error or kills its worker counts.
"""

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeAlias

from sqlalchemy import RowMapping

from runtime.logs import fields
from training.plane import database, dataset
from training.plane.checks import bars, texts
from training.plane.checks.report import Report
from training.plane.checks.rows import UnreadableError
from training.plane.claims import Claims
from training.plane.clock import Clock
from training.plane.database import Database, Lease
from training.plane.objects import ObjectMissingError, Objects, ObjectsAwayError, at_most
from training.plane.schema import datasets

log = logging.getLogger(__name__)

Check: TypeAlias = Callable[[Iterable[bytes], Report, Callable[[], None]], None]
CHECKS: Final[dict[str, Check]] = {"texts": texts.check, "bars": bars.check}
MOST_CHECKS: Final = 5
"""Checks of one dataset that may end without an answer: some end with their worker, at a restart."""


class Checker:
    """Checks datasets in a worker. Several checkers may share a database."""

    def __init__(self, store: Database, objects: Objects, worker: str, clock: Clock) -> None:
        self._store = store
        self._objects = objects
        self._clock = clock
        self._claims = Claims(store, datasets, worker, clock, by_owner=True)

    def turn(self) -> bool:
        """Check the next waiting dataset; False without a waiting dataset."""
        return self._claims.turn(lambda row, lease: self._try(row._mapping, lease))

    def _try(self, row: RowMapping, lease: Lease) -> None:
        """Check the dataset, or refuse the dataset after checks without an answer."""
        before = row["checks"]
        if before >= MOST_CHECKS:
            why = f"{before} checks of the dataset ended without an answer; the log of the plane has the error"
            with self._store.begin() as connection:
                dataset.checked(connection, lease, why, {"checks": before + 1})
            log.error("dataset given up", extra=fields(dataset=lease.id, checks=before))
            return
        if before:
            log.warning("dataset checked again", extra=fields(dataset=lease.id, checks=before))
        self._write(lease, checks=before + 1)
        try:
            self._check(row, lease)
        except ObjectsAwayError:  # no check has failed
            self._write(lease, checks=before)
            raise

    def _check(self, row: RowMapping, lease: Lease) -> None:
        report = Report()
        content = _Content(self._bytes(row, report))
        with contextlib.suppress(UnreadableError):  # the reason is in the report
            CHECKS[row["kind"]](content, report, lambda: self._write(lease))
        for _ in content:  # a check that has ended early has not read to the end
            pass
        if content.size != row["bytes"]:
            _first(report, "size", f"{row['bytes']} bytes were declared, {content.size} came")
        elif content.sha256.hexdigest() != row["sha256"]:
            _first(report, "sha256", "the bytes are others than declared: their SHA-256 differs")
        found: dict[str, Any] = {"report": report.as_json(), "rows": report.rows}
        found |= {"first_time": report.first_time or None, "last_time": report.last_time or None}
        with self._store.begin() as connection:
            dataset.checked(connection, lease, report.reason, found)
        log.info("dataset checked", extra=fields(dataset=lease.id, refused=bool(report.reason), rows=report.rows))

    def _bytes(self, row: RowMapping, report: Report) -> Iterator[bytes]:
        try:
            yield from at_most(self._objects.read(row["key"]), row["bytes"])
        except ObjectMissingError:
            report.error("missing", 0, "the uploaded bytes are gone")

    def _write(self, lease: Lease, **values: Any) -> None:
        with self._store.begin() as connection:
            database.write(connection, lease, self._clock.now(), values)


class _Content:
    """The chunks, counted and digested on their way."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self.size = 0
        self.sha256 = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.size += len(chunk)
            self.sha256.update(chunk)
            yield chunk


def _first(report: Report, code: str, why: str) -> None:
    """If the bytes differ from the declared bytes, other findings have no meaning."""
    report.errors.clear()
    report.error(code, 0, why)
