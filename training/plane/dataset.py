"""The store's verbs for datasets: declared, uploaded, checked, deleted.

Owns the rows of `datasets`. The checks of the content are checks/'s; a dataset becomes `ready` or `refused` by them
alone.
"""

from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, RowMapping, func, insert, select, update

from training.plane import database, identifier, token
from training.plane.database import Lease
from training.plane.errors import ConflictError
from training.plane.schema import datasets

UNFINISHED_SECONDS: Final = 6 * 3600.0
"""The time for all uploads of a dataset, longer than an address is valid: S3 checks addresses only at the beginning."""
PLAIN: Final = [column for column in datasets.c if column is not datasets.c.report]
"""All columns but the report, which has up to a megabyte."""
LABELS: Final = datasets.c.report["labels"].label("labels")


class DatasetState(StrEnum):
    """`ready`, `refused` and `deleted` are final, but that a ready or refused dataset may be deleted."""

    UPLOADING = "uploading"
    CHECKING = "checking"
    READY = "ready"
    REFUSED = "refused"
    DELETED = "deleted"


def declare(
    connection: Connection, owner: str, name: str, kind: str, sha256: str, size: int, parts: int, now: float
) -> str:
    """A dataset to be uploaded; the id."""
    made = identifier.new()
    row = {
        "id": made, "owner": owner, "name": name, "kind": kind, "sha256": sha256, "bytes": size, "parts": parts,
        "state": DatasetState.UPLOADING, "key": f"datasets/{made}", "created_at": now,
    }  # fmt: skip
    connection.execute(insert(datasets).values(**row))
    return made


def get(connection: Connection, owner: str, dataset: str, *more: ColumnElement[Any]) -> RowMapping:
    """The row without its report, and with `more`. Raises NotFoundError when the dataset is not the owner's."""
    found = select(*PLAIN, *more).where(datasets.c.id == dataset, datasets.c.owner == owner)
    return database.one(connection, found, "dataset", dataset)


def listed(connection: Connection, owner: str, before: str, limit: int) -> list[RowMapping]:
    """The owner's datasets that are not deleted, the newest first, without reports."""
    mine = (datasets.c.owner == owner, datasets.c.state != DatasetState.DELETED)
    found = select(*PLAIN).where(*mine).order_by(datasets.c.id.desc()).limit(limit)
    if before:
        found = found.where(datasets.c.id < before)
    return list(connection.execute(found).mappings())


def held(connection: Connection, owner: str) -> tuple[int, int]:
    """Number and declared bytes of the owner's datasets that are not deleted.

    No other transaction adds one before this one ends.
    """
    database.take_turns(connection, owner)
    mine = (datasets.c.owner == owner, datasets.c.state != DatasetState.DELETED)
    found = select(func.count(), func.coalesce(func.sum(datasets.c.bytes), 0)).where(*mine)
    number, size = connection.execute(found).one()
    return number, int(size)


def declared_since(connection: Connection, owner: str, since: float) -> int:
    """The number of the owner's datasets declared after a time, deleted ones among these."""
    mine = (datasets.c.owner == owner, datasets.c.created_at > since)
    return connection.execute(select(func.count()).select_from(datasets).where(*mine)).scalar_one()


def set_upload(connection: Connection, dataset: str, upload: str) -> None:
    connection.execute(update(datasets).where(datasets.c.id == dataset).values(upload=upload))


def uploaded(connection: Connection, dataset: str, now: float) -> None:
    """The bytes are there: let the checks begin. Nothing happens when the checks have begun."""
    same = (datasets.c.id == dataset, datasets.c.state == DatasetState.UPLOADING)
    connection.execute(
        update(datasets).where(*same).values(state=DatasetState.CHECKING, completed_at=now, due_at=now, upload="")
    )


def checked(connection: Connection, lease: Lease, reason: str, found: dict[str, Any]) -> None:
    """Write the report down: ready without a reason, refused with one. Raises LeaseLostError."""
    state = DatasetState.REFUSED if reason else DatasetState.READY
    database.release(connection, lease, None, state=state, reason=reason, **found)


def delete(connection: Connection, owner: str, dataset: str, now: float) -> RowMapping:
    """Mark as deleted and end the tokens; the row as it was. Raises NotFoundError, ConflictError while checks run."""
    row = get(connection, owner, dataset)
    if row["state"] == DatasetState.CHECKING:
        raise ConflictError("the dataset is being checked; delete it after the checks")
    connection.execute(update(datasets).where(datasets.c.id == dataset).values(state=DatasetState.DELETED, due_at=None))
    token.revoke(connection, now, dataset=dataset)
    return row
