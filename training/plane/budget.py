"""Budgets of owners for a calendar month (UTC), and the ledger of reservations and charges.

Owns `budgets` and `ledger`. The ledger is append-only: the end of a reservation is a negative row. The end of a
reservation and the charges after the reservation belong to the month of the attempt's newest reservation.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from training.plane.schema import budgets, ledger

RESERVE: Final = "reserve"
RELEASE: Final = "release"
CHARGE: Final = "charge"
SETTLE: Final = "settle"


@dataclass(frozen=True, slots=True)
class Account:
    """An owner's month in USD: the budget (`limit`), the reservations and the charges."""

    period: str
    limit: float
    reserved: float
    charged: float

    @property
    def left(self) -> float:
        """The largest possible further reservation."""
        return max(0.0, self.limit - self.reserved - self.charged)


def period(at: float) -> str:
    """The month of a Unix time, such as 2026-11."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m")


def account(connection: Connection, owner: str, now: float, default: float) -> Account:
    """The owner's present month. `default` is the limit of owners without a set limit."""
    month = period(now)
    own = connection.execute(select(budgets.c.usd_per_month).where(budgets.c.owner == owner)).scalar()
    found = select(ledger.c.kind, func.sum(ledger.c.usd)).where(ledger.c.owner == owner, ledger.c.period == month)
    sums = dict(connection.execute(found.group_by(ledger.c.kind)).all())
    reserved = sums.get(RESERVE, 0.0) + sums.get(RELEASE, 0.0)
    return Account(month, default if own is None else own, reserved, sums.get(CHARGE, 0.0) + sums.get(SETTLE, 0.0))


def owners(connection: Connection, now: float) -> list[str]:
    """The owners with a limit of their own, or with a row of the present month, by name."""
    limited = select(budgets.c.owner).where(budgets.c.usd_per_month.is_not(None))
    active = select(ledger.c.owner).where(ledger.c.period == period(now))
    return sorted(connection.execute(limited.union(active)).scalars())


def set_limit(connection: Connection, owner: str, usd_per_month: float | None) -> None:
    """Set the owner's limit; None for the default."""
    _row(connection, owner)
    connection.execute(update(budgets).where(budgets.c.owner == owner).values(usd_per_month=usd_per_month))


def reserve(connection: Connection, owner: str, job: str, attempt: int, usd: float, now: float, default: float) -> bool:
    """Reserve for an attempt, in the place of the attempt's earlier reservation. False when the budget is too small.

    Two reservations of one owner take turns, so that no dollar is reserved twice.
    """
    if usd <= 0:
        return True
    _row(connection, owner)
    connection.execute(select(budgets.c.owner).where(budgets.c.owner == owner).with_for_update())
    # A reservation of an earlier month takes nothing from the present month, so its end frees nothing there.
    same_month = _month(connection, job, attempt, now) == period(now)
    freed = outstanding(connection, job, attempt) if same_month else 0.0
    if usd > account(connection, owner, now, default).left + freed:
        return False
    release(connection, owner, job, attempt, now)
    _write(connection, owner, period(now), job, attempt, RESERVE, usd, now)
    return True


def outstanding(connection: Connection, job: str, attempt: int) -> float:
    """The reservation of an attempt, in USD."""
    same = (ledger.c.job == job, ledger.c.attempt == attempt, ledger.c.kind.in_((RESERVE, RELEASE)))
    return float(connection.execute(select(func.coalesce(func.sum(ledger.c.usd), 0.0)).where(*same)).scalar_one())


def release(connection: Connection, owner: str, job: str, attempt: int, now: float) -> None:
    """End the attempt's reservation."""
    held = outstanding(connection, job, attempt)
    if held > 0:
        month = _month(connection, job, attempt, now)
        _write(connection, owner, month, job, attempt, RELEASE, -held, now)


def charge(connection: Connection, owner: str, job: str, attempt: int, usd: float, now: float) -> None:
    """Charge the cost of the attempt's machine by the agreed price, in the place of the reservation."""
    month = _month(connection, job, attempt, now)
    release(connection, owner, job, attempt, now)
    if usd > 0:
        _write(connection, owner, month, job, attempt, CHARGE, usd, now)


def settle(connection: Connection, owner: str, job: str, attempt: int, billed: float, now: float) -> None:
    """Correct the attempt's charge to the platform's bill."""
    same = (ledger.c.job == job, ledger.c.attempt == attempt, ledger.c.kind.in_((CHARGE, SETTLE)))
    charged = connection.execute(select(func.coalesce(func.sum(ledger.c.usd), 0.0)).where(*same)).scalar_one()
    if billed != charged:
        month = _month(connection, job, attempt, now)
        _write(connection, owner, month, job, attempt, SETTLE, billed - charged, now)


def spent(connection: Connection, job: str) -> float:
    """The charges of all attempts of the job, in USD."""
    same = (ledger.c.job == job, ledger.c.kind.in_((CHARGE, SETTLE)))
    return float(connection.execute(select(func.coalesce(func.sum(ledger.c.usd), 0.0)).where(*same)).scalar_one())


def _month(connection: Connection, job: str, attempt: int, now: float) -> str:
    """The month of the attempt's newest reservation; without a reservation, the month of the newest row."""
    rows = select(ledger.c.period).where(ledger.c.job == job, ledger.c.attempt == attempt)
    newest = rows.order_by(ledger.c.seq.desc()).limit(1)
    reserved = connection.execute(newest.where(ledger.c.kind == RESERVE)).scalar()
    return reserved or connection.execute(newest).scalar() or period(now)


def _row(connection: Connection, owner: str) -> None:
    make = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    connection.execute(make(budgets).values(owner=owner).on_conflict_do_nothing())


def _write(
    connection: Connection, owner: str, month: str, job: str, attempt: int, kind: str, usd: float, now: float
) -> None:
    row = {"owner": owner, "period": month, "job": job, "attempt": attempt, "kind": kind, "usd": usd, "at": now}
    connection.execute(insert(ledger).values(**row))
