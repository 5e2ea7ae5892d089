"""The checks of uploaded datasets in a worker, on both databases."""

import hashlib
from collections.abc import Iterator

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import DBAPIError

from tests.training.plane.conftest import NOW, OWNER
from training.plane import checker, dataset, identifier, metrics
from training.plane.checker import MOST_CHECKS, Checker
from training.plane.clock import Clock
from training.plane.database import LEASE_SECONDS, Database
from training.plane.objects import ObjectsAwayError
from training.plane.schema import datasets

GOOD = "\n".join(["text,label", *(f"shares rise number {n},{n % 2}" for n in range(30))]).encode()


class Times(Clock):
    """A clock of the test: a lease ends between two looks of a worker."""

    at = NOW

    def __init__(self) -> None:
        super().__init__(lambda: self.at)

    def after_the_lease(self) -> None:
        self.at += LEASE_SECONDS + 1


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
        return dict(dataset.get(connection, OWNER, made, datasets.c.report))


def test_a_reason_repeats_what_no_database_stores(store: Database) -> None:
    content = b"te\0xt,label\na,1\n"
    made = uploaded(store, content)
    assert Checker(store, Stored(content), "w", Clock()).turn()
    found = look(store, made)
    assert (found["state"], found["reason"]) == ("refused", "row 1: no column 'text'; there are: te\ufffdxt, label")
    assert found["report"]["places"]["columns"][0]["why"].endswith("te\ufffdxt, label")


def given_up(store: Database) -> str:
    lines = metrics.exposition(store, NOW).decode().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("market_training_datasets_given_up_total"))


def test_a_check_that_fails_by_a_bug_is_tried_some_times_then_the_dataset_is_refused(
    store: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError

    times, made = Times(), uploaded(store)
    worker = Checker(store, Stored(), "w", times)
    monkeypatch.setitem(checker.CHECKS, "texts", fails)
    for _ in range(MOST_CHECKS):
        with pytest.raises(ZeroDivisionError):
            worker.turn()
        assert look(store, made)["state"] == "checking"
        assert not worker.turn()
        times.after_the_lease()
    assert given_up(store) == "0.0"
    assert worker.turn()
    found = look(store, made)
    why = "5 checks of the dataset ended without an answer; the log of the plane has the error"
    assert (found["state"], found["reason"], given_up(store)) == ("refused", why, "1.0")
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["dataset given up"]
    times.after_the_lease()
    assert not worker.turn()
    with store.begin() as connection:
        assert dataset.delete(connection, OWNER, made, NOW)["id"] == made
    assert given_up(store) == "1.0"


def test_a_report_that_the_database_refuses_is_a_check_without_an_answer(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    times, made = Times(), uploaded(store)
    worker = Checker(store, Stored(), "w", times)
    monkeypatch.setitem(checker.CHECKS, "texts", lambda _, report, alive: setattr(report, "rows", 1 << 70))
    failed = 0
    while look(store, made)["state"] == "checking":
        try:
            worker.turn()
        except (DBAPIError, OverflowError):  # of PostgreSQL, of SQLite
            failed += 1
        times.after_the_lease()
    assert (failed, look(store, made)["state"]) == (MOST_CHECKS, "refused")


def test_a_worker_that_ends_during_a_check_counts_and_another_one_checks(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(*_: object) -> None:
        raise SystemExit

    times, made = Times(), uploaded(store)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setitem(checker.CHECKS, "texts", ends)
        Checker(store, Stored(), "w", times).turn()
    times.after_the_lease()
    assert Checker(store, Stored(), "another", times).turn()
    found = look(store, made)
    assert (found["state"], found["checks"], given_up(store)) == ("ready", 2, "0.0")


def test_an_object_store_that_is_away_is_no_check(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> Iterator[bytes]:
        raise ObjectsAwayError

    times, made = Times(), uploaded(store)
    stored = Stored()
    worker = Checker(store, stored, "w", times)
    with monkeypatch.context() as patch:
        patch.setattr(stored, "read", away)
        for _ in range(2 * MOST_CHECKS):
            with pytest.raises(ObjectsAwayError):
                worker.turn()
            assert not worker.turn()  # gives the row back, due in a second
            times.after_the_lease()
    assert worker.turn()
    found = look(store, made)
    assert (found["state"], found["checks"]) == ("ready", 1)
