"""The platform's bill of an attempt's machines replaces the amount by the agreed price.

Owns the time of the question: an hour after the machine was seen gone, when the bill is complete. An attempt may have
several machines: after a request without an answer the reaper may have ended a second machine of the attempt. sweep.py
keeps the remains of a machine until the bill is settled.
"""

import logging
from typing import Any, Final

from sqlalchemy import ColumnElement, RowMapping, Select, and_, or_, select, update

from runtime.logs import fields
from training.plane import budget
from training.plane.duty import each
from training.plane.job import AttemptState
from training.plane.launcher import Handle, LauncherAwayError
from training.plane.schema import attempts, events, jobs
from training.plane.services import Services

log = logging.getLogger(__name__)

SETTLE_AFTER_SECONDS: Final = 3600.0
# A bill of nothing for a machine that ran is not complete yet, for so long.
EMPTY_BILL_SECONDS: Final = 86_400.0
_AT_ONCE: Final = 100
ORPHAN: Final = "orphan"
"""The event of an attempt's machine, ended by the reaper."""


def unsettled() -> ColumnElement[bool]:
    """Attempts with a machine that is gone, and with a bill that is not settled."""
    return and_(
        attempts.c.state == AttemptState.GONE,
        attempts.c.settled_at.is_(None),
        or_(attempts.c.created_at.is_not(None), _orphans(attempts.c.job, attempts.c.n).exists()),
        attempts.c.usd_per_hour > 0,
    )


def _orphans(job: ColumnElement[str] | str, attempt: ColumnElement[int] | int) -> Select[Any]:
    """The events of the attempt's machines, ended by the reaper."""
    return select(events.c.data, events.c.at).where(
        events.c.job == job, events.c.attempt == attempt, events.c.kind == ORPHAN
    )


def bills(services: Services) -> None:
    """Settle attempts an hour after the end of the machines. A platform without an answer is asked the next time."""
    now = services.clock.now()
    fresh = _orphans(attempts.c.job, attempts.c.n).where(events.c.at >= now - SETTLE_AFTER_SECONDS)
    due = (unsettled(), attempts.c.gone_at < now - SETTLE_AFTER_SECONDS, ~fresh.exists())
    found = select(attempts, jobs.c.owner).join(jobs, jobs.c.id == attempts.c.job)
    with services.store.read() as connection:
        rows = connection.execute(found.where(*due).order_by(attempts.c.gone_at).limit(_AT_ONCE)).mappings().all()
    known = [row for row in rows if row["launcher"] in services.machines.launchers]
    each(known, lambda row: _settle(services, row, now))


def _settle(services: Services, row: RowMapping, now: float) -> None:
    launcher = services.machines.launcher(row["launcher"])
    with services.store.read() as connection:
        orphans = connection.execute(_orphans(row["job"], row["n"])).all()
    until = max([row["gone_at"], *(at for _, at in orphans)]) + SETTLE_AFTER_SECONDS
    # Platforms with unique names have no ids, and one bill for a name.
    ids = {row["handle"], *(told["id"] for told, _ in orphans)}
    try:
        found = [launcher.bill(Handle(row["name"], one), row["requested_at"], until) for one in sorted(ids)]
    except LauncherAwayError as error:
        log.warning("no bill", extra=fields(machine=row["name"], reason=str(error)))
        return
    bills_of = [one for one in found if one is not None]
    billed = sum(bills_of) if bills_of else None
    if billed == 0.0 and now < row["gone_at"] + EMPTY_BILL_SECONDS:
        return
    same = (attempts.c.job == row["job"], attempts.c.n == row["n"], attempts.c.settled_at.is_(None))
    with services.store.begin() as connection:
        # Two workers may have asked for the same bill; the first one writes.
        settled = connection.execute(update(attempts).where(*same).values(settled_at=now, usd_billed=billed))
        if settled.rowcount == 1 and billed is not None:
            budget.settle(connection, row["owner"], row["job"], row["n"], billed, now)
