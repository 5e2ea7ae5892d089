"""Errors of the infrastructure, as callers meet them: a typed refusal that says when to come again."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import create_engine, text
from starlette.types import Message

from training.plane.app import application
from training.plane.clock import Clock
from training.plane.config import Config
from training.plane.database import Database
from training.plane.folder import FolderObjects
from training.plane.machines import Machines
from training.plane.services import Services
from training.plane.signature import Signer


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/store.db")
    made.migrate()
    yield made
    made.close()


def asked(store: Database, folder: Path, path: str) -> tuple[int, dict[bytes, bytes], dict[str, object]]:
    """Status, headers and body of the answer to GET."""
    signer = Signer(store)
    app = application(
        Services(
            config=Config(), store=store, objects=FolderObjects(folder, signer, "http://127.0.0.1:1"), signer=signer,
            authenticator=SimpleNamespace(), machines=Machines("mi", {}), clock=Clock(),
        )
    )  # fmt: skip
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b"", "http_version": "1.1"}
    asyncio.run(app(scope, receive, send))
    body = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], dict(sent[0]["headers"]), json.loads(body)


def test_a_pool_without_a_free_connection_is_a_503(store: Database, tmp_path: Path) -> None:
    """The answer was 500: the pool's time-out is no error of the database."""
    store.engine.dispose()
    store.engine = create_engine(store.url, pool_size=1, max_overflow=0, pool_timeout=0.01)
    with store.engine.connect():
        status, headers, body = asked(store, tmp_path, "/metrics")
    assert (status, headers[b"retry-after"], body["reason"]) == (503, b"5", "UNAVAILABLE")


def test_a_database_without_its_file_is_a_503(store: Database, tmp_path: Path) -> None:
    store.engine.dispose()
    (tmp_path / "store.db").unlink()
    (tmp_path / "store.db").mkdir()
    status, headers, body = asked(store, tmp_path, "/metrics")
    assert (status, headers[b"retry-after"], body["reason"]) == (503, b"5", "UNAVAILABLE")


def test_a_full_store_is_told(store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "The store does not answer; try again" hid the full disk."""

    def full(*_: object) -> bytes:
        with store.begin() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count = 1")  # SQLite's bound is the present size at least
            connection.exec_driver_sql("CREATE TABLE large AS SELECT zeroblob(1000000)")
        return b""

    monkeypatch.setattr("training.plane.metrics.exposition", full)
    status, _, body = asked(store, tmp_path, "/metrics")
    assert (status, body["reason"]) == (507, "STORAGE_FULL")
    assert str(body["detail"]).startswith("the disk of the store is full: delete datasets")


def test_a_statement_that_the_database_refuses_is_a_bug(
    store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ "The store does not answer; try again" hid the bug, and the caller tried again."""

    def broken(*_: object) -> bytes:
        with store.begin() as connection:
            connection.execute(text("INSERT INTO duties (name, last_error) VALUES ('a', NULL)"))
        return b""

    monkeypatch.setattr("training.plane.metrics.exposition", broken)
    status, _, body = asked(store, tmp_path, "/metrics")
    assert (status, body["reason"]) == (500, "INTERNAL")
