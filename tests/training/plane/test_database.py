"""Migrations, claims and leases on both databases."""

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import insert, select, text, update

from tests.training.plane.forks import Forks
from training.plane import database, dataset
from training.plane.database import LEASE_SECONDS, LONGEST_WAIT_SECONDS, Database, LeaseLostError
from training.plane.job import Attempt
from training.plane.schema import attempts, datasets, duties, metadata

NOW = 1_800_000_000.0


def add(store: Database, *names: str, **values: object) -> None:
    with store.begin() as connection:
        connection.execute(insert(duties), [{"name": name, "due_at": 0.0, **values} for name in names])


def claim(store: Database, now: float = NOW, worker: str = "w") -> database.Lease | None:
    with store.begin() as connection:
        found = database.claim(connection, duties, worker, now)
    return None if found is None else found[1]


PROGRAM = """
import os, signal
from training.plane import database
from training.plane.database import Database
from training.plane.schema import duties

def run(what, url):
    store = Database(url)
    match what:
        case "migrate":
            store.migrate()
        case "take":
            while True:
                with store.begin() as connection:
                    found = database.claim(connection, duties, str(os.getpid()), 1_800_000_000.0)
                if found is None:
                    break
                with store.begin() as connection:
                    database.release(connection, found[1], None)
                print(found[1].id)
        case "die":
            with store.begin() as connection:
                database.claim(connection, duties, "w", 1_800_000_000.0)
            os.kill(os.getpid(), signal.SIGKILL)
"""
Processes = Callable[[str, str, int], list[tuple[int, list[str]]]]


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks(PROGRAM) as made:
        yield made


@pytest.fixture
def processes(forks: Forks) -> Processes:
    """Exit code and lines of so many processes that run at once."""

    def run(what: str, url: str, count: int) -> list[tuple[int, list[str]]]:
        return [(code, said.split()) for code, said in forks.run(*[(what, url)] * count)]

    return run


def test_the_migrations_make_the_tables_of_the_schema(store: Database) -> None:
    with store.engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    assert differences == []


def test_an_attempt_from_before_an_upgrade_is_paid_for_as_long_as_reserved(empty_url: str) -> None:
    store, config = Database(empty_url), Config()
    config.set_main_option("script_location", str(Path(database.__file__).with_name("migrations")))
    running = {
        "job": "j", "n": 1, "name": "mi-1", "state": "running", "requested_at": NOW, "deadline": NOW + 9, "starts": 1,
        "step": 0, "asked_at": NOW + 1, "usd_per_hour": 2.0, "usd_reserved": 3.0,
    }  # fmt: skip
    columns = ", ".join(running), ", ".join(f":{name}" for name in running)
    with store.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        connection.execute(text(f"INSERT INTO attempts ({columns[0]}) VALUES ({columns[1]})"), running)  # noqa: S608
    store.migrate()
    with store.read() as connection:
        found = Attempt.of(connection.execute(select(attempts)).mappings().one())
    store.close()
    assert (found.usd_doubted, found.unanswered_at, found.billed_since) == (0.0, None, NOW + 1)
    assert found.paid_until(2.0) == NOW + 1 + 1.5 * 3600.0


def test_workers_that_start_together_migrate_once(empty_url: str, processes: Processes) -> None:
    assert [code for code, _ in processes("migrate", empty_url, 3)] == [0, 0, 0]


def test_of_several_processes_each_row_goes_to_one(store: Database, url: str, processes: Processes) -> None:
    wanted = [f"row-{number:02d}" for number in range(60)]
    add(store, *wanted)
    taken = processes("take", url, 2)
    assert [code for code, _ in taken] == [0, 0]
    assert sorted(name for _, names in taken for name in names) == wanted


def test_the_lease_of_a_killed_worker_ends_and_its_token_is_worth_nothing(store: Database, url: str) -> None:
    add(store, "row")
    first = claim(store)
    assert first is not None
    assert claim(store) is None
    second = claim(store, NOW + LEASE_SECONDS + 1)
    assert second is not None
    with pytest.raises(LeaseLostError), store.begin() as connection:
        database.write(connection, first, NOW, {"last_error": "late"})
    with store.begin() as connection:
        database.write(connection, second, NOW, {"last_error": "mine"})
        assert connection.execute(select(duties.c.last_error)).scalar() == "mine"


def test_a_worker_killed_after_its_claim_holds_nothing_for_ever(
    store: Database, url: str, processes: Processes
) -> None:
    add(store, "row")
    assert processes("die", url, 1) == [(-signal.SIGKILL, [])]
    assert claim(store) is None
    assert claim(store, NOW + LEASE_SECONDS + 1) is not None


def test_a_poke_during_a_lease_makes_the_row_due_at_once(store: Database) -> None:
    add(store, "row")
    lease = claim(store)
    with store.begin() as connection:
        database.poke(connection, duties, "row", last_error="poked")
    with store.begin() as connection:
        database.release(connection, lease, NOW + 500)
    assert claim(store) is not None


def test_a_row_that_waits_for_long_is_not_due_before(store: Database) -> None:
    add(store, "row")
    lease = claim(store)
    with store.begin() as connection:
        database.release(connection, lease, database.later(NOW, 86_400.0))
    assert claim(store, NOW + LONGEST_WAIT_SECONDS - 1) is None
    assert claim(store, NOW + LONGEST_WAIT_SECONDS) is not None


def test_a_claim_of_some_rows_leaves_the_others(store: Database) -> None:
    add(store, "mine", "another")
    with store.begin() as connection:
        assert database.is_due(connection, duties, NOW, ("mine",))
        assert database.claim(connection, duties, "w", NOW, ("mine",))[0].name == "mine"
        assert database.claim(connection, duties, "w", NOW, ("mine",)) is None
        assert not database.is_due(connection, duties, NOW, ("mine",))
        assert database.is_due(connection, duties, NOW)


@pytest.mark.parametrize("values", [{"due_at": NOW + LONGEST_WAIT_SECONDS + 60}, {"lease_until": NOW + 3600}])
def test_times_of_a_clock_that_was_ahead_hold_nothing_back(store: Database, values: dict[str, float]) -> None:
    add(store, "row")
    with store.begin() as connection:
        connection.execute(update(duties).values(**values))
    assert claim(store) is not None


def test_documents_hold_texts_that_postgresql_cannot_read(store: Database) -> None:
    with store.begin() as connection:
        name = dataset.declare(connection, "tina", "rows.csv", "bars", "0" * 64, 1, 1, NOW)
        report = {"labels": ["A\0B", "\ud800", "\\u0000"], "A\0": {"n": 1.5}}
        connection.execute(update(datasets).where(datasets.c.id == name).values(report=report))
    with store.read() as connection:
        found = connection.execute(select(datasets.c.report, datasets.c.report["labels"])).one()
    labels = ["A\ufffdB", "\ufffd", "\\u0000"]
    assert tuple(found) == ({"labels": labels, "A\ufffd": {"n": 1.5}}, labels)


def test_of_declarations_at_once_no_more_are_made_than_an_owner_may_have(store: Database) -> None:
    ready = threading.Barrier(16)

    def declare(owner: str) -> None:
        ready.wait(60)
        with store.begin() as connection:
            if dataset.held(connection, owner)[0] < 3:
                dataset.declare(connection, owner, "rows.csv", "texts", "0" * 64, 1, 1, NOW)

    threads = [threading.Thread(target=declare, args=(owner,)) for owner in ("tina", "tom") * 8]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with store.read() as connection:
        assert [len(dataset.listed(connection, owner, "", 50)) for owner in ("tina", "tom")] == [3, 3]


def test_writers_of_one_sqlite_file_wait_for_each_other(tmp_path: Path) -> None:
    store = Database(f"sqlite:///{tmp_path}/store.db")
    store.migrate()
    add(store, "row", last_error="0")

    def count() -> None:
        for _ in range(50):
            with store.begin() as connection:
                before = int(connection.execute(select(duties.c.last_error)).scalar_one())
                connection.execute(update(duties).values(last_error=str(before + 1)))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with store.begin() as connection:
        assert connection.execute(select(duties.c.last_error)).scalar() == "200"
    store.close()
