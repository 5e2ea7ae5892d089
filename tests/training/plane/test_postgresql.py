"""A PostgreSQL that falls silent, hangs, holds locks, or has become a standby: limits are short in these tests."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from sqlalchemy import URL, insert, make_url, select, text, update
from sqlalchemy.exc import DBAPIError, InternalError, OperationalError

from benchmarks.training.planes import PlaneProcess, ask
from tests.eventually import eventually
from tests.training.plane.conftest import TEMPLATE, create, execute
from tests.training.plane.silent import Proxy, proxied
from training.plane import database
from training.plane.database import Database
from training.plane.schema import duties

SECONDS = 0.5
SOON = 30.0
"""More than any limit takes on a busy machine, and less than the kernel's own limits."""
NAME = select(duties.c.name)
WAITS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
def direct(postgres: URL) -> str:
    return create(postgres, TEMPLATE)


@pytest.fixture
def proxy(direct: str) -> Iterator[Proxy]:
    with proxied(direct) as made:
        yield made


@pytest.fixture
def store(proxy: Proxy) -> Iterator[Database]:
    with closing(Database(proxy.url, SECONDS)) as made:
        with made.begin() as connection:
            connection.execute(insert(duties).values(name="row", due_at=0.0))
        yield made


def read(store: Database) -> list[str]:
    with store.read() as connection:
        return list(connection.execute(NAME).scalars())


def test_idle_connections_that_fell_silent_are_replaced(store: Database, proxy: Proxy) -> None:
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(store.read())
    proxy.silence()
    began = time.monotonic()
    assert [read(store) for _ in range(3)] == [["row"]] * 3
    assert time.monotonic() - began < SOON


def test_a_transaction_on_a_connection_that_fell_silent_ends(store: Database, proxy: Proxy) -> None:
    began = time.monotonic()
    with pytest.raises(OperationalError), store.begin() as connection:
        connection.execute(NAME)
        proxy.silence()
        connection.execute(NAME)
    assert time.monotonic() - began < SOON
    assert read(store) == ["row"]


def test_a_server_that_accepts_and_never_answers_is_away(store: Database, proxy: Proxy) -> None:
    proxy.deaf = True
    proxy.silence()
    began = time.monotonic()
    with pytest.raises(OperationalError):
        read(store)
    assert time.monotonic() - began < SOON
    proxy.deaf = False
    assert read(store) == ["row"]


def test_a_lost_plane_holds_no_lock(store: Database, proxy: Proxy, direct: str) -> None:
    change = update(duties).values(last_error="x")
    # The transaction's own end waits for the pool's rollback on the silent connection.
    with closing(Database(direct, SECONDS)) as other, pytest.raises(DBAPIError), store.begin() as lost:
        lost.execute(change)
        proxy.silence()
        with pytest.raises(OperationalError, match="timeout"), other.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = '10ms'"))
            connection.execute(change)

        def write() -> bool:
            try:
                with other.begin() as connection:
                    connection.execute(change)
            except OperationalError:
                return False
            return True

        eventually(write)


def test_a_primary_that_became_a_standby_is_left(store: Database, proxy: Proxy, direct: str) -> None:
    with store.engine.connect() as connection:
        connection.execute(text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
        connection.commit()
    change = update(duties).values(last_error="x")
    with pytest.raises(InternalError, match="read-only"), store.begin() as connection:
        connection.execute(change)
    with store.begin() as connection:
        connection.execute(change)
    name = make_url(direct).database
    execute(make_url(direct), f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    proxy.silence()
    with pytest.raises(OperationalError, match="read-only"):
        read(store)


def test_a_migration_waits_longer_than_any_statement(direct: str) -> None:
    failed: list[Exception] = []

    def migrate(store: Database) -> None:
        try:
            store.migrate()
        except DBAPIError as error:
            failed.append(error)

    lock, unlock = (f"SELECT pg_advisory_{verb}({database._MIGRATION_LOCK})" for verb in ("lock", "unlock"))
    with (
        closing(Database(direct, 0.05)) as store,
        closing(Database(direct)) as holder,
        holder.engine.connect() as found,
    ):
        other = found.execution_options(isolation_level="AUTOCOMMIT")
        other.execute(text(lock))
        thread = threading.Thread(target=migrate, args=(store,))
        thread.start()
        # With the grace of the client.
        waited = text(f"{WAITS} AND clock_timestamp() - query_start > interval '1.2 seconds'")
        eventually(lambda: other.execute(waited).scalar())
        other.execute(text(unlock))
        thread.join(60)
    assert not thread.is_alive()
    assert failed == []


def test_a_plane_whose_database_fell_silent_answers_503_and_then_goes_on(direct: str, tmp_path: Path) -> None:
    short = f"from training.plane.database import Database\nDatabase.__init__.__defaults__ = ({SECONDS},)"
    with proxied(direct) as proxy, PlaneProcess(tmp_path, DATABASE_URL=proxy.url, first=short) as plane:
        job = plane.job("sleep 2")
        plane.wait(f"/jobs/{job}", "running")
        proxy.deaf = True
        proxy.silence()
        answer = plane.ask("GET", "/jobs")
        assert (answer.status, answer.json["reason"], answer.headers["Retry-After"]) == (503, "UNAVAILABLE", "5")
        assert ask("GET", f"{plane.url}/health").json["store"]["healthy"] is False
        proxy.deaf = False
        proxy.silence()
        assert plane.finished(job)["state"] == "succeeded"
        assert ask("GET", f"{plane.url}/health").status == 200
