"""Budgets on both databases: no dollar is reserved twice, and the ledger adds up."""

import threading
from collections.abc import Callable

import pytest
from sqlalchemy import func, select

from training.plane import budget
from training.plane.database import Database
from training.plane.schema import ledger

NOW = 1_800_000_000.0  # January 2027
FEBRUARY = NOW + 31 * 86_400.0


def account(store: Database, now: float = NOW) -> budget.Account:
    with store.read() as connection:
        return budget.account(connection, "desk", now, 10.0)


def reserve(store: Database, job: str, usd: float, now: float = NOW) -> bool:
    with store.begin() as connection:
        return budget.reserve(connection, "desk", job, 1, usd, now, 10.0)


def write(store: Database, verb: Callable[..., None], *arguments: object) -> None:
    with store.begin() as connection:
        verb(connection, "desk", *arguments)


def test_a_reservation_is_held_charged_and_settled(store: Database) -> None:
    assert reserve(store, "A", 6.0)
    assert (account(store).reserved, account(store).left) == (6.0, 4.0)
    assert not reserve(store, "B", 4.01)
    assert reserve(store, "A", 9.0), "an attempt's new reservation takes the place of its earlier one"
    write(store, budget.charge, "A", 1, 2.5, NOW)
    assert account(store) == budget.Account("2027-01", 10.0, 0.0, 2.5)
    write(store, budget.settle, "A", 1, 2.0, NOW)
    write(store, budget.settle, "A", 1, 2.0, NOW)
    assert account(store).charged == pytest.approx(2.0)
    with store.read() as connection:
        assert budget.spent(connection, "A") == pytest.approx(2.0)
        assert connection.execute(select(func.count()).select_from(ledger)).scalar() == 6


def test_what_a_month_reserved_is_charged_to_that_month(store: Database) -> None:
    assert reserve(store, "A", 9.0)
    write(store, budget.charge, "A", 1, 8.0, FEBRUARY)
    write(store, budget.settle, "A", 1, 7.0, FEBRUARY)
    assert (account(store).charged, account(store, FEBRUARY).left) == (7.0, 10.0)


def test_a_reservation_that_is_renewed_in_a_new_month_moves_there(store: Database) -> None:
    assert reserve(store, "A", 6.0)
    assert reserve(store, "B", 9.0, FEBRUARY)
    assert not reserve(store, "A", 2.0, FEBRUARY), "January's reservation of A makes no room in February"
    assert account(store).reserved == 6.0
    assert reserve(store, "A", 1.0, FEBRUARY)
    assert (account(store).reserved, account(store, FEBRUARY).reserved) == (0.0, 10.0)
    write(store, budget.charge, "A", 1, 0.5, FEBRUARY)
    write(store, budget.settle, "A", 1, 0.25, FEBRUARY + 86_400.0)
    assert account(store) == budget.Account("2027-01", 10.0, 0.0, 0.0)
    assert account(store, FEBRUARY) == budget.Account("2027-02", 10.0, 9.0, 0.25)


def test_an_owner_may_have_a_limit_of_their_own(store: Database) -> None:
    write(store, budget.set_limit, 3.0)
    assert not reserve(store, "A", 3.5)
    write(store, budget.set_limit, None)
    assert reserve(store, "A", 3.5)


def test_owners_are_those_who_spend_this_month_or_have_a_limit(store: Database) -> None:
    assert reserve(store, "A", 1.0)
    with store.begin() as connection:
        budget.set_limit(connection, "quiet", 5.0)
        budget.set_limit(connection, "gone", None)
        assert budget.owners(connection, NOW) == ["desk", "quiet"]
        assert budget.owners(connection, FEBRUARY) == ["quiet"]


def test_owners_do_not_share_a_budget(store: Database) -> None:
    assert reserve(store, "A", 9.0)
    with store.begin() as connection:
        assert budget.reserve(connection, "other", "B", 1, 9.0, NOW, 10.0)


def test_two_launches_cannot_reserve_the_same_dollar(store: Database) -> None:
    barrier, won = threading.Barrier(8), []

    def launch(number: int) -> None:
        barrier.wait(60)
        if reserve(store, f"J{number}", 3.0):
            won.append(number)

    threads = [threading.Thread(target=launch, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(won) == 3
    assert account(store).reserved == 9.0
