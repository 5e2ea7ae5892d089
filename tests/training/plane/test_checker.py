"""The checks of uploaded datasets in a worker, on both databases."""

import hashlib
from collections.abc import Iterator

from sqlalchemy import insert

from tests.training.plane.conftest import NOW, OWNER
from training.plane import dataset, identifier
from training.plane.checker import Checker
from training.plane.clock import Clock
from training.plane.database import Database
from training.plane.schema import datasets

GOOD = "\n".join(["text,label", *(f"shares rise number {n},{n % 2}" for n in range(30))]).encode()


class Stored:
    """The part of an object store that the checks use."""

    def __init__(self, content: bytes = GOOD) -> None:
        self.content = content

    def read(self, key: str) -> Iterator[bytes]:
        yield self.content


def uploaded(store: Database, content: bytes = GOOD, **values: object) -> str:
    made = identifier.new()
    row = {
        "id": made, "owner": OWNER, "name": "rows.csv", "kind": "texts", "state": "uploading", "parts": 1,
        "key": f"datasets/{made}", "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content),
        "created_at": NOW, **values,
    }  # fmt: skip
    with store.begin() as connection:
        connection.execute(insert(datasets).values(**row))
        dataset.uploaded(connection, made, NOW)
    return made


def look(store: Database, made: str) -> dict[str, object]:
    with store.read() as connection:
        return dict(dataset.get(connection, OWNER, made))


def test_a_reason_repeats_what_no_database_stores(store: Database) -> None:
    content = b"te\0xt,label\na,1\n"
    made = uploaded(store, content)
    assert Checker(store, Stored(content), "w", Clock()).turn()
    found = look(store, made)
    assert (found["state"], found["reason"]) == ("refused", "row 1: no column 'text'; there are: te\ufffdxt, label")
    assert found["report"]["places"]["columns"][0]["why"].endswith("te\0xt, label")
