"""Files between a pod and the plane: uploads by signed address, checkpoints with the manifest last, resuming.

Owns the order: a checkpoint counts for the plane only after every file of it is complete. An upload that fails is tried
again for an hour with a new address each time, and the job ends with code 75 after that.
"""

import hashlib
import time
from pathlib import Path
from typing import Any

from training.pod.plane import Plane, get, insist, put

HOLD_SECONDS = 3600.0
CHECKPOINT_SECONDS = 120.0


class BrokenCheckpointError(Exception):
    """A file of the checkpoint has other bytes than its digest says."""


def digest(file: Path) -> str:
    """SHA-256 in hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def upload(plane: Plane, kind: str, file: Path, seconds: float, step: int = 0) -> str:
    """The id of the uploaded file. Raises AwayError, RefusedError."""
    declared = {"kind": kind, "name": file.name, "sha256": digest(file), "bytes": file.stat().st_size, "step": step}

    def once() -> str:
        made = plane.post("uploads", declared)
        put(made["url"], file, made["headers"])
        plane.post(f"uploads/{made['id']}/complete", {})
        return str(made["id"])

    return str(insist(once, seconds))


def checkpoint(plane: Plane, folder: Path, step: int) -> None:
    """Upload the folder's files, then name these as the checkpoint of the step. Raises AwayError, RefusedError."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    ids = {path.name: upload(plane, "checkpoint", path, CHECKPOINT_SECONDS, step) for path in files}
    plane.insist("checkpoints", {"step": step, "files": ids}, CHECKPOINT_SECONDS)


def resume(described: dict[str, Any], folder: Path) -> None:
    """Fetch the files of a checkpoint. Raises BrokenCheckpointError, AwayError, RefusedError."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in described["files"]:
        content = insist(lambda url=file["url"]: get(url), CHECKPOINT_SECONDS)
        if hashlib.sha256(content).hexdigest() != file["sha256"]:
            raise BrokenCheckpointError(file["name"])
        (folder / Path(file["name"]).name).write_bytes(content)


def hand_over(plane: Plane, folder: Path, measures: dict[str, float]) -> None:
    """Upload the artifacts and report the result; the pod holds these for at most an hour. Raises AwayError."""
    end = time.monotonic() + HOLD_SECONDS
    files = sorted(path for path in folder.iterdir() if path.is_file())
    for path in files:
        upload(plane, "artifact", path, max(1.0, end - time.monotonic()))
    outcome = {"measures": measures, "artifacts": [path.name for path in files]}
    plane.insist("result", outcome, max(1.0, end - time.monotonic()))
