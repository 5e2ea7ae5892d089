"""Files that pods upload: artifacts, checkpoints and logs.

Owns the rows of `uploads` and `checkpoints`, and what an attempt may have of both. A file counts only when its bytes
have been read back and have the digest that was declared.

A file that is replaced is retired: its bytes go at once, and an empty object stays in their place, since the address of
the upload is still valid and an object is written once. The row goes with the sweep, when no address is valid any more.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sqlalchemy import ColumnElement, Connection, RowMapping, case, delete, func, insert, select, update

from training.plane import database, event, identifier, reports
from training.plane.errors import (
    ConflictError,
    LimitReachedError,
    OverloadedError,
    TooLargeError,
    Violation,
)
from training.plane.objects import ObjectMissingError, Objects, at_most
from training.plane.schema import checkpoints, jobs, uploads
from training.plane.token import Holder

UPLOAD_SECONDS: Final = 3600.0
"""How long the address of an upload is valid."""
UNFINISHED_SECONDS: Final = 2 * UPLOAD_SECONDS
"""The time for an upload and its completion; a retired file keeps its row for as long."""
MOST_ARTIFACTS: Final = 1000
"""Artifacts of an attempt."""
MOST_FILES: Final = 10_000
"""Files of an attempt, with retired ones: a checkpoint of one file every second. Artifacts and logs have MOST_ARTIFACTS
more, so that no number of checkpoints takes the result's place."""
KEPT_CHECKPOINTS: Final = 2
"""Checkpoints that a job keeps, the newest ones."""
MOST_CHECKPOINT_EVENTS: Final = 1000
"""Checkpoints of an attempt that are told as events."""
_RETIRED: Final = ""
"""The digest of a retired file: no bytes have this one."""


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


@dataclass(frozen=True, slots=True)
class Declared:
    """Id and key of a file to be uploaded, and the keys of the files that the file replaces: empty these."""

    id: str
    key: str
    replaced: Sequence[str]


def declare(connection: Connection, holder: Holder, new: NewUpload, now: float, most_bytes: int) -> Declared:
    """A file to be uploaded.

    It replaces an artifact of the same name and attempt, or a file of the same checkpoint that no checkpoint names yet.
    Raises TooLargeError when the attempt's files would have more than `most_bytes`, OverloadedError for more than
    MOST_FILES, LimitReachedError for more than MOST_ARTIFACTS, ConflictError for an artifact after the result.
    """
    event.lock(connection, holder.job)
    job = connection.execute(select(jobs).where(jobs.c.id == holder.job)).mappings().one()
    if new.kind is UploadKind.ARTIFACT and reports.has_result(job, holder):
        raise ConflictError(f"attempt {holder.attempt} of the job has reported its result")
    replaced = retire(connection, _same(connection, holder, new))
    _check_room(connection, holder, new, most_bytes)
    made = identifier.new()
    row = {
        "id": made, "job": holder.job, "attempt": holder.attempt, "owner": holder.owner, "kind": new.kind,
        "name": new.name, "key": f"uploads/{made}", "sha256": new.sha256, "bytes": new.bytes, "step": new.step,
        "created_at": now, "expires_at": now + UNFINISHED_SECONDS,
    }  # fmt: skip
    connection.execute(insert(uploads).values(**row))
    return Declared(made, f"uploads/{made}", replaced)


def _same(connection: Connection, holder: Holder, new: NewUpload) -> list[str]:
    """The ids of the files that the new one replaces. A log replaces the one before when the new log is complete."""
    if new.kind is UploadKind.LOG:
        return []
    same = [*_of(holder), uploads.c.kind == new.kind, uploads.c.name == new.name, uploads.c.sha256 != _RETIRED]
    if new.kind is UploadKind.CHECKPOINT:
        same += [uploads.c.step == new.step, uploads.c.id.not_in(_named(newest_checkpoints(connection, holder.job)))]
    return list(connection.execute(select(uploads.c.id).where(*same)).scalars())


def _check_room(connection: Connection, holder: Holder, new: NewUpload, most_bytes: int) -> None:
    artifact = (uploads.c.kind == UploadKind.ARTIFACT) & (uploads.c.sha256 != _RETIRED)
    sums = (func.count(), func.coalesce(func.sum(uploads.c.bytes), 0), func.count(case((artifact, 1))))
    files, held, artifacts = connection.execute(select(*sums).where(*_of(holder))).one()
    most = MOST_FILES + (0 if new.kind is UploadKind.CHECKPOINT else MOST_ARTIFACTS)
    if files >= most:
        text = f"at most {most} files of an attempt within two hours"
        raise OverloadedError(text, Violation("uploads", text, most), retry_after=600.0)
    if new.kind is UploadKind.ARTIFACT and artifacts >= MOST_ARTIFACTS:
        raise LimitReachedError.at("uploads", MOST_ARTIFACTS, "artifacts of an attempt")
    if new.kind is not UploadKind.LOG and held + new.bytes > most_bytes:  # the log says why the attempt has failed
        text = f"at most {most_bytes} bytes of all files of an attempt; {held} are declared"
        raise TooLargeError(f"bytes: {text}", Violation("bytes", text, most_bytes))


def _of(holder: Holder) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return uploads.c.job == holder.job, uploads.c.attempt == holder.attempt


def _named(found: Iterable[RowMapping]) -> set[str]:
    """The ids of the files of some checkpoints."""
    return {file for row in found for file in row["files"].values()}


def retire(connection: Connection, ids: Collection[str], *which: ColumnElement[bool]) -> list[str]:
    """Take the files out of use, of these such as `which`; the keys, whose objects the caller empties."""
    if not ids:
        return []
    ends = uploads.c.created_at + UNFINISHED_SECONDS
    values = {"bytes": 0, "sha256": _RETIRED, "complete_at": None, "expires_at": ends}
    retired = update(uploads).where(uploads.c.id.in_(ids), *which).values(**values).returning(uploads.c.key)
    return list(connection.execute(retired).scalars())


def of_holder(connection: Connection, holder: Holder, upload: str) -> RowMapping:
    """The pod's own file. Raises NotFoundError."""
    found = select(uploads).where(uploads.c.id == upload, uploads.c.job == holder.job)
    return database.one(connection, found, "upload", upload)


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
    """The bytes were verified: keep the file until `expires_at`. Raises ConflictError for a file that was replaced."""
    same = (uploads.c.id == upload, uploads.c.sha256 != _RETIRED)
    completed = update(uploads).where(*same).values(complete_at=now, expires_at=expires_at)
    if connection.execute(completed).rowcount != 1:
        raise ConflictError("another file has replaced this one")


def complete_log(connection: Connection, holder: Holder, log: str, now: float, expires_at: float) -> list[str]:
    """The log is stored: keep it in the place of the attempt's log before; the keys of logs to empty."""
    event.lock(connection, holder.job)
    complete(connection, log, now, expires_at)
    before = (*_of(holder), uploads.c.kind == UploadKind.LOG, uploads.c.complete_at.is_not(None), uploads.c.id != log)
    return retire(connection, list(connection.execute(select(uploads.c.id).where(*before)).scalars()))


def checkpoint(connection: Connection, holder: Holder, step: int, files: Mapping[str, str], now: float) -> list[str]:
    """Take a checkpoint in, its files by name and upload id; the keys of the files of superseded ones, to empty.

    Another checkpoint of the same step replaces the one before. Raises ConflictError unless every file is complete.
    """
    event.lock(connection, holder.job)
    kept = select(uploads.c.id).where(
        uploads.c.id.in_(files.values()), uploads.c.job == holder.job, uploads.c.kind == UploadKind.CHECKPOINT,
        uploads.c.complete_at.is_not(None),
    )  # fmt: skip
    complete = set(connection.execute(kept).scalars())
    if missing := sorted(name for name, file in files.items() if file not in complete):
        raise ConflictError(f"files of the checkpoint are not complete: {', '.join(missing[:5])}")
    before = newest_checkpoints(connection, holder.job)
    row = {"job": holder.job, "step": step, "attempt": holder.attempt, "files": dict(files), "complete_at": now}
    if any(one["step"] == step for one in before):
        same = (checkpoints.c.job == holder.job, checkpoints.c.step == step)
        connection.execute(update(checkpoints).where(*same).values(**row))
    else:
        connection.execute(insert(checkpoints).values(**row))
        if event.count(connection, holder.job, holder.attempt, "checkpoint") < MOST_CHECKPOINT_EVENTS:
            event.append(connection, holder.job, holder.attempt, now, "checkpoint", step=step)
    return _supersede(connection, holder.job, _named(before))


def _supersede(connection: Connection, job: str, files: set[str]) -> list[str]:
    """Delete all checkpoints but the newest ones, and retire those of the files that no checkpoint names any more."""
    newest = newest_checkpoints(connection, job)
    old = [row["step"] for row in newest[KEPT_CHECKPOINTS:]]
    connection.execute(delete(checkpoints).where(checkpoints.c.job == job, checkpoints.c.step.in_(old)))
    return retire(connection, (files | _named(newest)) - _named(newest[:KEPT_CHECKPOINTS]))


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
    return database.one(
        connection, select(uploads).where(*mine, uploads.c.complete_at.is_not(None)), "artifact", upload
    )


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
