"""Versions of models: the model of a job, under a name, with a verdict of the gate.

Owns the rows of `versions` and `looks`, and the first row of a name in `models`. promotion.py moves the aliases,
gatekeeper.py asks for verdicts. A version's label, such as `3-9f86d081`, is the `model_version` of answers: the number,
and the beginning of the digest of the version's files.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from training.plane import database, event, identifier, upload
from training.plane.database import Lease
from training.plane.errors import ConflictError, InvalidRequestError, LimitReachedError, NotFoundError
from training.plane.gate.verdict import Report, Verdict
from training.plane.job import JobState
from training.plane.model_tables import looks, models, versions
from training.plane.objects import Objects, content
from training.plane.schema import datasets, uploads

NAME: Final = "^[a-z][a-z0-9_-]{0,63}$"
MANIFEST: Final = "manifest.json"
JUDGING: Final = "judging"
FAILED: Final = "failed"
"""The gate has given the version up: a bug. No version that failed is promoted or runs in the shadow."""
KINDS: Final = ("sentiment", "forecast")
MOST_OF_JOB: Final = 20
"""Versions of a job: each has a name of its own."""
_MOST_MANIFEST_BYTES = 1 << 20
_FOREVER = 1e12
_LISTED: Final = [column for column in versions.c if column.name not in {"manifest", "files", "report"}]
_LABEL = re.compile(r"(\d{1,9})(-[0-9a-f]{8})?")


def manifest_of(connection: Connection, objects: Objects, job: RowMapping) -> tuple[dict[str, Any], dict[str, Any]]:
    """The manifest that the job made, and the uploads of the files by name: key, SHA-256 and bytes.

    Raises ConflictError for a job without a model that a registry can serve.
    """
    if job["state"] != JobState.SUCCEEDED:
        raise ConflictError(f"the job is {job['state']}; a version is made of a job that succeeded")
    kept = [row for row in upload.artifacts(connection, job["owner"], job["id"]) if row["attempt"] == job["attempt"]]
    rows = {row["name"]: row for row in kept}
    described = rows.get(MANIFEST)
    if described is None or described["bytes"] > _MOST_MANIFEST_BYTES:
        raise ConflictError(f"the job has made no {MANIFEST}")
    try:
        manifest = _checked(json.loads(content(objects, described)))
    except (ValueError, RecursionError):
        raise ConflictError(f"{MANIFEST} of the job is no JSON") from None
    for name, sha256 in manifest["files"].items():
        if name not in rows or rows[name]["sha256"] != sha256:
            raise ConflictError(f"{MANIFEST} lists {name!r}, and the job has not uploaded that file")
    return manifest, {
        name: {column: row[column] for column in ("key", "sha256", "bytes")} for name, row in rows.items()
    }


def _checked(manifest: Any) -> dict[str, Any]:
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise ConflictError(f"{MANIFEST} of the job is malformed")
    if manifest.get("kind") not in KINDS:
        raise ConflictError(f"{MANIFEST} of the job has a kind that is none of {', '.join(KINDS)}")
    return manifest


def register(
    connection: Connection, name: str, job: RowMapping, manifest: dict[str, Any], files: Mapping[str, Any], now: float,
    image: str = "",
) -> RowMapping:  # fmt: skip
    """Make a version of the job, due to be judged; the same job under the same name is the same version.

    `image` is what the machine ran, empty for a process of this computer. The job's files are kept for good. Raises
    ConflictError for a name of another owner or kind, and for a file that is gone, LimitReachedError.
    """
    event.lock(connection, job["id"])
    model = _model(connection, name, job["owner"], manifest["kind"], now)
    same = select(versions).where(versions.c.name == name, versions.c.job == job["id"])
    found = connection.execute(same).mappings().first()
    if found is not None:
        return found
    others = select(func.count()).select_from(versions).where(versions.c.job == job["id"])
    if connection.execute(others).scalar_one() >= MOST_OF_JOB:
        raise LimitReachedError.at("job", MOST_OF_JOB, "versions of a job, under all names")
    number = connection.execute(select(func.max(versions.c.number)).where(versions.c.name == name)).scalar() or 0
    digest = hashlib.sha256(json.dumps(manifest["files"], sort_keys=True).encode()).hexdigest()
    sha256 = connection.execute(select(datasets.c.sha256).where(datasets.c.id == job["dataset"])).scalar() or ""
    row = {
        "id": identifier.new(), "name": model["name"], "number": number + 1, "label": f"{number + 1}-{digest[:8]}",
        "owner": job["owner"], "job": job["id"], "dataset": job["dataset"], "dataset_sha256": sha256, "image": image,
        "manifest": manifest, "files": dict(files), "measures": (job["result"] or {}).get("measures", {}),
        "state": JUDGING, "created_at": now, "due_at": now,
    }  # fmt: skip
    connection.execute(insert(versions).values(**row))
    keys = [file["key"] for file in files.values()]
    kept = update(uploads).where(uploads.c.key.in_(keys), uploads.c.complete_at.is_not(None))
    if connection.execute(kept.values(expires_at=_FOREVER)).rowcount != len(keys):
        raise ConflictError("the files of the job are deleted: their time is over")
    return connection.execute(same).mappings().one()


def _model(connection: Connection, name: str, owner: str, kind: str, now: float) -> RowMapping:
    """The row of the name, locked, made when the name is new. Raises ConflictError."""
    if not re.match(NAME, name):
        raise InvalidRequestError.at("name", f"must match {NAME}")
    try:
        with connection.begin_nested():
            connection.execute(insert(models).values(name=name, owner=owner, kind=kind, created_at=now))
    except IntegrityError:
        pass
    row = connection.execute(select(models).where(models.c.name == name).with_for_update()).mappings().one()
    if row["owner"] != owner:
        raise ConflictError(f"the model name {name!r} is taken")
    if row["kind"] != kind:
        raise ConflictError(f"the model {name!r} is of kind {row['kind']}, and the job has made a {kind} model")
    return row


def model(connection: Connection, owner: str, name: str) -> RowMapping:
    """The row of the owner's model. Raises NotFoundError."""
    found = select(models).where(models.c.name == name, models.c.owner == owner)
    return database.one(connection, found, "model", name)


def get(connection: Connection, owner: str, name: str, label: str) -> RowMapping:
    """A version by its label or its number alone. Raises NotFoundError."""
    match = _LABEL.fullmatch(label)
    found = select(versions).where(versions.c.name == name, versions.c.owner == owner)
    if match is not None:
        wanted = (versions.c.label == label) if match[2] else (versions.c.number == int(match[1]))
        row = connection.execute(found.where(wanted)).mappings().first()
        if row is not None:
            return row
    raise NotFoundError("version", f"{name} {label}")


def listed(connection: Connection, owner: str, name: str, before: int, limit: int) -> list[RowMapping]:
    """The versions of the owner's model below a number, the newest first. Raises NotFoundError.

    Without manifests, files and reports, which have up to a megabyte each.
    """
    model(connection, owner, name)
    older = (versions.c.name == name, versions.c.number < before)
    found = select(*_LISTED).where(*older).order_by(versions.c.number.desc()).limit(limit)
    return list(connection.execute(found).mappings())


def judge_again(connection: Connection, version: RowMapping, now: float) -> None:
    """Make the version due for another verdict: the champion may have changed. Raises ConflictError.

    Due from now, so that versions that wait already come first.
    """
    if version["state"] == JUDGING:
        raise ConflictError("the gate is at work on the version")
    database.poke(connection, versions, version["id"], now, state=JUDGING)


def look(connection: Connection, holdout: str, version: str, now: float, most: int) -> int | None:
    """Write down a look of the version at a holdout; the looks of earlier versions, None when `most` are used up.

    A second look of the same version is none: the answers are the same. Looks at one dataset take turns.
    """
    data = select(versions.c.dataset_sha256).where(versions.c.id == version).scalar_subquery()
    rivals = select(versions.c.id).where(versions.c.dataset_sha256 == data).order_by(versions.c.id)
    connection.execute(rivals.with_for_update())
    seen = connection.execute(select(looks.c.version).where(looks.c.holdout == holdout).order_by(looks.c.at)).scalars()
    before = list(seen)
    if version in before:
        return before.index(version)
    if len(before) >= most:
        return None
    connection.execute(insert(looks).values(holdout=holdout, version=version, at=now))
    return len(before)


def judged(connection: Connection, lease: Lease, report: Report, now: float) -> None:
    """Write the verdict and give the row back. Raises LeaseLostError."""
    values = {"state": str(report.verdict), "report": report.as_json(), "judged_at": now}
    database.release(connection, lease, None, **values)


def given_up(connection: Connection, lease: Lease, why: str, now: float) -> None:
    """End the judging without a verdict: the version may be judged again. Raises LeaseLostError."""
    database.release(connection, lease, None, state=FAILED, report={"verdict": FAILED, "reasons": [why]}, judged_at=now)


def locked(connection: Connection, version: str) -> RowMapping:
    """The row of a version, held until the transaction ends: a verdict waits meanwhile."""
    return connection.execute(select(versions).where(versions.c.id == version).with_for_update()).mappings().one()


def judged_against(connection: Connection, version: RowMapping) -> str:
    """The label of the champion in the version's verdict; empty for the configured model."""
    name, _, label = (version["report"] or {}).get("champion", "").rpartition(" ")
    same = (versions.c.name == name, versions.c.label == label)
    known = name == version["name"] and connection.execute(select(versions.c.id).where(*same)).first() is not None
    return label if known else ""


def may_be_promoted(version: RowMapping) -> bool:
    """Whether the gate has let the version pass."""
    return bool(version["state"] == Verdict.PASSED)
