"""A store with a finished job, its artifacts in a real object store, and champions that answer as they are told."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from sqlalchemy import insert, update

from tests.training.plane.conftest import NOW, OWNER, new_job
from training.plane import identifier, jobs
from training.plane.database import Database
from training.plane.folder import FolderObjects
from training.plane.schema import datasets, uploads
from training.plane.schema import jobs as jobs_table
from training.recipes import recipe as recipes


class Champion:
    """Answers with fixed probabilities or with a multiple of a random walk's quantiles."""

    def __init__(self, name: str = "minilm 1", probabilities: Callable[[str], Sequence[float]] | None = None) -> None:
        self.name = name
        self.probabilities = probabilities or (lambda text: [1 / 3] * 3)
        self.asked: list[str] = []

    def texts(self, model: str, texts: Sequence[str], alive: Callable[[], None]) -> tuple[str, np.ndarray]:
        alive()
        self.asked += texts
        return self.name, np.array([self.probabilities(text) for text in texts])

    def bands(
        self,
        model: str,
        contexts: Sequence[Mapping[str, np.ndarray]],
        horizon: int,
        levels: Sequence[float],
        alive: Callable[[], None],
    ) -> tuple[str, list[dict[str, np.ndarray]]]:
        alive()
        wide = np.exp(0.1 * (np.array(levels) - 0.5))
        return self.name, [{symbol: closes[-1] * wide for symbol, closes in one.items()} for one in contexts]


def texts_csv(count: int = 200) -> bytes:
    lines = [f"text {n},{n % 3},{2024 + n // 336}-{1 + n % 336 // 28:02d}-{1 + n % 28:02d}" for n in range(count)]
    return "\n".join(["text,label,time", *lines, ""]).encode()


def add_version_job(
    store: Database, objects: FolderObjects, recipe: Mapping[str, object], data: bytes, files: Mapping[str, bytes],
    *, kind: str = "sentiment", owner: str = OWNER, listed: Mapping[str, str] | None = None,
) -> str:  # fmt: skip
    """A job that succeeded, with its dataset and its artifacts; the id."""
    dataset = identifier.new()
    made = {name: hashlib.sha256(content).hexdigest() for name, content in files.items() if name != "evaluation.csv"}
    described = {"kind": kind, "architecture": "any", "name": "m", "version": "1", "licence": "Apache-2.0",
                 "dtype": "float32", "files": listed or made}  # fmt: skip
    whole = {**files, "manifest.json": json.dumps(described).encode()}
    objects.put(f"datasets/{dataset}", data)
    asked = recipes.of(dict(recipe))
    with store.begin() as connection:
        connection.execute(
            insert(datasets).values(
                id=dataset, owner=owner, name="rows.csv", kind="texts", state="ready", key=f"datasets/{dataset}",
                sha256=hashlib.sha256(data).hexdigest(), bytes=len(data), parts=1, created_at=NOW,
            )
        )  # fmt: skip
        new = new_job(dataset, owner=owner, recipe=asked.model_dump(mode="json"), text=recipes.fixed(asked))
        job, _ = jobs.create(connection, new, NOW)
        ended = {
            "state": "succeeded",
            "attempt": 1,
            "ended_at": NOW,
            "result": {"measures": {"nll": 0.5}, "attempt": 1},
        }
        connection.execute(update(jobs_table).where(jobs_table.c.id == job).values(**ended, due_at=None))
        for name, content in whole.items():
            made = identifier.new()
            objects.put(f"uploads/{made}", content)
            connection.execute(
                insert(uploads).values(
                    id=made, job=job, attempt=1, owner=owner, kind="artifact", name=name, key=f"uploads/{made}",
                    sha256=hashlib.sha256(content).hexdigest(), bytes=len(content), step=0, created_at=NOW,
                    complete_at=NOW, expires_at=NOW + 10,
                )
            )  # fmt: skip
    return job


def evaluation(rows: Sequence[int], probabilities: Callable[[int], Sequence[float]]) -> bytes:
    lines = [",".join([str(row), *(f"{p:.6f}" for p in probabilities(row))]) for row in rows]
    return "\n".join(["row,p0,p1,p2", *lines, ""]).encode()


def folder_objects(store: Database, folder: Path) -> FolderObjects:
    from training.plane.signature import Signer

    return FolderObjects(folder / "objects", Signer(store), "http://127.0.0.1:1")
