"""Files that pods upload: artifacts, checkpoints and logs.

Owns the rows of `uploads` and `checkpoints`. A file counts only when its bytes have been read back and have the digest
that was declared.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, RowMapping, insert, select, update

from training.plane import event, identifier
from training.plane.errors import ConflictError, NotFoundError
from training.plane.objects import ObjectMissingError, Objects, at_most
from training.plane.schema import checkpoints, uploads
from training.plane.token import Holder


class UploadKind(StrEnum):
    """The purpose of a file. Only artifacts are shown to users as artifacts."""

    ARTIFACT = "artifact"
    CHECKPOINT = "checkpoint"
    LOG = "log"


@dataclass(frozen=True, slots=True)
class NewUpload:
    """A file as the pod declares it. `name` is shown, never used as a path."""

    kind: UploadKind
    name: str
    sha256: str
    bytes: int
    step: int = 0


def declare(connection: Connection, holder: Holder, new: NewUpload, now: float, expires_at: float) -> tuple[str, str]:
    """Id and key of a file to be uploaded. An artifact of the same name and attempt is replaced."""
    made = identifier.new()
    row = {
        "id": made, "job": holder.job, "attempt": holder.attempt, "owner": holder.owner, "kind": new.kind,
        "name": new.name, "key": f"uploads/{made}", "sha256": new.sha256, "bytes": new.bytes, "step": new.step,
        "created_at": now, "expires_at": expires_at,
    }  # fmt: skip
    connection.execute(insert(uploads).values(**row))
    return made, f"uploads/{made}"


def of_holder(connection: Connection, holder: Holder, upload: str) -> RowMapping:
    """The pod's own file. Raises NotFoundError."""
    found = select(uploads).where(uploads.c.id == upload, uploads.c.job == holder.job)
    row = connection.execute(found).mappings().first()
    if row is None:
        raise NotFoundError("upload", upload)
    return row


def verify(objects: Objects, row: RowMapping) -> None:
    """Read the bytes back. Raises ConflictError when these are not the declared ones."""
    try:
        if (size := objects.size(row["key"])) != row["bytes"]:
            raise ConflictError(f"{row['bytes']} bytes were declared, {size} came")
        digest = hashlib.sha256()
        for chunk in at_most(objects.read(row["key"]), row["bytes"]):
            digest.update(chunk)
    except ObjectMissingError:
        raise ConflictError("nothing was uploaded") from None
    if digest.hexdigest() != row["sha256"]:
        raise ConflictError("the bytes are others than declared: their SHA-256 differs")


def complete(connection: Connection, upload: str, now: float, expires_at: float) -> None:
    """The bytes were verified: keep the file until `expires_at`."""
    values = {"complete_at": now, "expires_at": expires_at}
    connection.execute(update(uploads).where(uploads.c.id == upload).values(**values))


def supersede_logs(connection: Connection, holder: Holder, upload: str, now: float) -> None:
    """Let the earlier logs of the attempt end: a machine may send as many as it likes."""
    same = (uploads.c.job == holder.job, uploads.c.attempt == holder.attempt, uploads.c.kind == UploadKind.LOG)
    connection.execute(update(uploads).where(*same, uploads.c.id < upload).values(expires_at=now))


def checkpoint(connection: Connection, holder: Holder, step: int, files: Mapping[str, str], now: float) -> None:
    """Take a checkpoint in, its files by name and upload id. Raises ConflictError unless every file is complete."""
    event.lock(connection, holder.job)
    kept = select(uploads.c.id).where(
        uploads.c.id.in_(files.values()), uploads.c.job == holder.job, uploads.c.complete_at.is_not(None)
    )
    complete = set(connection.execute(kept).scalars())
    if missing := sorted(name for name, file in files.items() if file not in complete):
        raise ConflictError(f"files of the checkpoint are not complete: {', '.join(missing[:5])}")
    known = select(checkpoints.c.step).where(checkpoints.c.job == holder.job, checkpoints.c.step == step)
    if connection.execute(known).first() is None:
        row = {"job": holder.job, "step": step, "attempt": holder.attempt, "files": dict(files), "complete_at": now}
        connection.execute(insert(checkpoints).values(**row))
        event.append(connection, holder.job, holder.attempt, now, "checkpoint", step=step)


def checkpoint_files(connection: Connection, found: RowMapping) -> list[tuple[str, RowMapping]]:
    """Name and row of each file of a checkpoint."""
    ids = dict(found["files"])
    rows = connection.execute(select(uploads).where(uploads.c.id.in_(ids.values()))).mappings()
    by_id = {row["id"]: row for row in rows}
    return [(name, by_id[file]) for name, file in sorted(ids.items()) if file in by_id]


def artifacts(connection: Connection, owner: str, job: str) -> list[RowMapping]:
    """The complete artifacts of the owner's job."""
    mine = (uploads.c.job == job, uploads.c.owner == owner, uploads.c.kind == UploadKind.ARTIFACT)
    found = select(uploads).where(*mine, uploads.c.complete_at.is_not(None)).order_by(uploads.c.name, uploads.c.id)
    return list(connection.execute(found).mappings())


def artifact(connection: Connection, owner: str, upload: str) -> RowMapping:
    """One complete artifact of the owner. Raises NotFoundError."""
    mine = (uploads.c.id == upload, uploads.c.owner == owner, uploads.c.kind == UploadKind.ARTIFACT)
    row = connection.execute(select(uploads).where(*mine, uploads.c.complete_at.is_not(None))).mappings().first()
    if row is None:
        raise NotFoundError("artifact", upload)
    return row


def newest_log(connection: Connection, job: str) -> RowMapping | None:
    """The log of the newest attempt with a log."""
    found = select(uploads).where(
        uploads.c.job == job, uploads.c.kind == UploadKind.LOG, uploads.c.complete_at.is_not(None)
    )
    return connection.execute(found.order_by(uploads.c.id.desc()).limit(1)).mappings().first()


def newest_checkpoints(connection: Connection, job: str) -> list[RowMapping]:
    """The job's checkpoints, the newest first."""
    found = select(checkpoints).where(checkpoints.c.job == job).order_by(checkpoints.c.step.desc())
    return list(connection.execute(found).mappings())
