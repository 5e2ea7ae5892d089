"""Claims on the rows of a table: owners take turns."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Row, update

from tests.training.plane.conftest import NOW, add_dataset
from training.plane import clock as clocks
from training.plane import database, dataset, identifier
from training.plane.claims import Claims
from training.plane.database import Database, Lease
from training.plane.schema import datasets


class Clock(clocks.Clock):
    """Goes on by a second at each look."""

    at = NOW

    def now(self) -> float:
        self.at += 1.0
        return self.at


def uploaded(store: Database, owner: str, clock: Clock) -> None:
    made = add_dataset(store, "uploading", owner)
    with store.begin() as connection:
        dataset.uploaded(connection, made, clock.now())


def claimed(store: Database, worker: Claims, then: Callable[[], None] = lambda: None) -> list[str]:
    """The owners of the rows in the order of the claims, until no row is due; `then` runs after the first claim."""
    found: list[str] = []

    def done(row: Row[Any], lease: Lease) -> None:
        found.append(row.owner)
        if len(found) == 1:
            then()
        with store.begin() as connection:
            database.release(connection, lease, None)

    while worker.turn(done):
        pass
    return found


def test_owners_take_turns(store: Database) -> None:
    """The first owner has uploaded datasets before the others came, and goes on to upload."""
    clock = Clock()
    for owner in ("first",) * 4 + ("second",) * 2 + ("third", "first"):
        uploaded(store, owner, clock)
    order = claimed(store, Claims(store, datasets, "a", clock, by_owner=True))
    assert order == ["first", "second", "third", "first", "second", "first", "first", "first"]


def test_rows_of_an_owner_that_are_put_behind_keep_their_order(store: Database) -> None:
    """The rows get the same due time; a database alone returns such rows in the order of its file."""
    clock = Clock()
    ids = sorted((identifier.new() for _ in range(6)), reverse=True)
    for one in ids:
        made = add_dataset(store, "checking", "first")
        with store.begin() as connection:
            connection.execute(update(datasets).where(datasets.c.id == made).values(id=one, due_at=clock.now()))
    order: list[str] = []

    def done(row: Row[Any], lease: Lease) -> None:
        order.append(row.id)
        with store.begin() as connection:
            database.release(connection, lease, None)

    worker = Claims(store, datasets, "a", clock, by_owner=True)
    while worker.turn(done):
        pass
    # The claim of the first row, by its own due time, puts the others behind.
    assert order == [ids[0], *sorted(ids[1:])]


def test_a_newcomer_waits_for_two_rows_of_another_owner_at_most(store: Database) -> None:
    clock = Clock()
    for _ in range(4):
        uploaded(store, "first", clock)
    worker = Claims(store, datasets, "a", clock, by_owner=True)
    order = claimed(store, worker, lambda: uploaded(store, "second", clock))
    assert order == ["first", "first", "second", "first", "first"]


def test_rows_that_wait_for_a_time_and_leased_rows_stay_as_they_are(store: Database) -> None:
    clock = Clock()
    later, leased, due = (add_dataset(store, "checking", "first") for _ in range(3))
    with store.begin() as connection:
        for row, due_at, token in ((later, NOW + 500, None), (leased, NOW, "x"), (due, NOW, None)):
            connection.execute(update(datasets).where(datasets.c.id == row).values(due_at=due_at, lease_token=token))
        database.put_behind(connection, datasets, "first", clock.now())
        found = {row.id: row.due_at for row in connection.execute(datasets.select())}
    assert (found[later], found[leased], found[due]) == (NOW + 500, NOW, clock.at)
