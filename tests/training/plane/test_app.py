"""Errors of the infrastructure, as callers meet them: a typed refusal that says when to come again."""

import asyncio
import json
import time
from collections.abc import Iterable, Iterator, Sequence
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


def asked(
    store: Database, folder: Path, path: str, method: str = "GET", pieces: Iterable[bytes] = (),
    clock: Clock | None = None, query: str = "", headers: Sequence[tuple[bytes, bytes]] = (),
) -> tuple[int, dict[bytes, bytes], dict[str, object]]:  # fmt: skip
    """Status, headers and body of the answer; an empty body after the pieces."""
    signer = Signer(store)
    app = application(
        Services(
            config=Config(), store=store, objects=FolderObjects(folder, signer, "http://127.0.0.1:1"), signer=signer,
            authenticator=SimpleNamespace(), machines=Machines("mi", {}), clock=clock or Clock(),
        )
    )  # fmt: skip
    sent: list[Message] = []
    left = iter(pieces)

    async def receive() -> Message:
        piece = next(left, b"")
        return {"type": "http.request", "body": piece, "more_body": bool(piece)}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": method, "path": path, "headers": headers, "query_string": query.encode(),
        "http_version": "1.1",
    }  # fmt: skip
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


def test_an_upload_ends_with_its_address(store: Database, tmp_path: Path) -> None:
    """The end of the address counted for the beginning alone: a byte every 29 seconds kept the upload for days."""
    now = time.time()

    def pieces() -> Iterator[bytes]:
        nonlocal now
        yield b"in time"
        assert [path.name for path in tmp_path.rglob(".*.0")]
        now += 60.0
        yield b"late"

    path, clock = "/objects/uploads/01M8HA6MDY93G3J7MXWPK51RN5", Clock(lambda: now)
    query = Signer(store).sign("PUT", path.removeprefix("/objects/"), now + 60.0, bytes=100)
    length = [(b"content-length", b"100")]
    status, _, body = asked(store, tmp_path, path, "PUT", pieces(), clock, query, length)
    assert (status, body["reason"]) == (408, "BODY_TOO_SLOW")
    assert body["detail"] == "the upload did not end while its address was valid"
    assert list(tmp_path.rglob("uploads/*")) == []
