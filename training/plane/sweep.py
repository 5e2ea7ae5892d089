"""Scheduled deletion of tokens, unfinished uploads, checkpoints, old jobs, deleted bytes, stray machines.

Owns the order: a file is retired first, so that no version is made of the file any more; then its bytes go, then the
row that names the bytes, so that a sweep that is cut off is done again. Rows that counters are counted from are added
to `totals` in the same transaction.
"""

import functools
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, RowMapping, Select, delete, func, not_, or_, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from runtime.logs import fields
from training.plane import dataset, event, settle, terms, token, upload
from training.plane.checker import MOST_CHECKS
from training.plane.dataset import UNFINISHED_SECONDS, DatasetState
from training.plane.duty import Duty, each
from training.plane.job import FINAL, AttemptState
from training.plane.launcher import Handle, Launcher, LauncherAwayError
from training.plane.metrics import GIVEN_UP_KIND, TOKEN_STATES, machines_gone, machines_settled
from training.plane.model_tables import versions
from training.plane.objects import forget_bytes
from training.plane.schema import attempts, checkpoints, datasets, events, jobs, measurements, tokens, totals, uploads
from training.plane.services import Services

log = logging.getLogger(__name__)

_DAY: Final = 86_400.0
_AT_ONCE: Final = 500
_MEASUREMENTS_AT_ONCE: Final = 5000
_KEPT_TOKEN_SECONDS: Final = _DAY
_KEPT_CHECKPOINTS: Final = upload.KEPT_CHECKPOINTS
_KEPT_REMAINS_SECONDS: Final = 3600.0
# For so long after their end machines are asked for bills and have remains that can be deleted.
_REMAINS_SECONDS: Final = 7 * _DAY


def duties(services: Services) -> dict[str, Duty]:
    """The duties by name."""
    return {
        "sweep_tokens": Duty(600.0, lambda: tokens_ended(services)),
        "sweep_uploads": Duty(600.0, lambda: uploads_ended(services)),
        "sweep_datasets": Duty(600.0, lambda: datasets_unfinished(services)),
        "sweep_deleted": Duty(600.0, lambda: datasets_deleted(services)),
        "sweep_checkpoints": Duty(60.0, lambda: checkpoints_superseded(services)),
        "sweep_jobs": Duty(900.0, lambda: jobs_old(services)),
        "sweep_machines": Duty(600.0, lambda: machines_remains(services)),
        "settle_bills": Duty(600.0, lambda: settle.bills(services)),
    }


def reaper(services: Services) -> dict[str, Duty]:
    """The duty of ending stray machines, apart: the duty promises a period, and no other duty may delay the reaper."""
    return {"reap_machines": Duty(terms.REAP_SECONDS, lambda: machines_stray(services))}


def tokens_ended(services: Services) -> None:
    """Delete tokens a day after their end, some hundred in a transaction."""
    before = services.clock.now() - _KEPT_TOKEN_SECONDS
    found = select(tokens.c.digest, tokens.c.kind, *(tokens.c[f"{outcome}_at"] for outcome in TOKEN_STATES))
    found = found.where(or_(tokens.c.expires_at < before, tokens.c.revoked_at < before)).limit(_AT_ONCE)
    full = True
    while full:
        with services.store.begin() as connection:
            rows = connection.execute(found).mappings().all()
            digests = [row["digest"] for row in rows]
            # Of two workers at once one deletes a row, and counts the row.
            same = delete(tokens).where(tokens.c.digest.in_(digests)).returning(tokens.c.digest)
            gone = set(connection.execute(same).scalars())
            for outcome in TOKEN_STATES:
                ended = [row for row in rows if row["digest"] in gone and row["kind"] == token.DOWNLOAD]
                _keep_count(connection, f"token:{outcome}", sum(row[f"{outcome}_at"] is not None for row in ended))
        full = len(rows) == _AT_ONCE


def uploads_ended(services: Services) -> None:
    """Delete files after their time, complete or not."""
    over = uploads.c.expires_at < services.clock.now()
    found = select(uploads.c.id, uploads.c.key).where(over).order_by(func.random())

    def end(file: tuple[str, str]) -> None:
        with services.store.begin() as connection:
            retired = upload.retire(connection, [file[0]], over)
        if retired:  # no version was made of the file since the look
            _forget_file(services, file)

    _each_found(services, found, end)


def datasets_unfinished(services: Services) -> None:
    """Refuse datasets without a completed upload, and delete the bytes that came."""
    before = services.clock.now() - UNFINISHED_SECONDS
    waiting = (datasets.c.state == DatasetState.UPLOADING, datasets.c.created_at < before)
    with services.store.read() as connection:
        found = select(*dataset.PLAIN).where(*waiting).order_by(func.random()).limit(_AT_ONCE)
        rows = connection.execute(found).mappings().all()

    def refuse(row: RowMapping) -> None:
        forget_bytes(services.objects, row["key"], row["upload"])
        given_up = {"state": DatasetState.REFUSED, "reason": "the upload was not completed"}
        with services.store.begin() as connection:
            connection.execute(update(datasets).where(datasets.c.id == row["id"], *waiting).values(**given_up))

    each(rows, refuse)


def datasets_deleted(services: Services) -> None:
    """Delete bytes that came after their dataset's deletion: a signed address stays valid."""
    ended = services.clock.now() - UNFINISHED_SECONDS
    in_time = (datasets.c.created_at < ended, datasets.c.created_at > ended - _DAY)
    with services.store.read() as connection:
        found = select(datasets.c.key, datasets.c.upload).where(datasets.c.state == DatasetState.DELETED, *in_time)
        rows = connection.execute(found).all()
    each(rows, lambda row: forget_bytes(services.objects, *row))
    _rows_of_deleted(services)


def _rows_of_deleted(services: Services) -> None:
    """Delete the rows of deleted datasets that no job and no version names, once no address of theirs is valid."""
    before = services.clock.now() - max(services.config.keep_days * _DAY, UNFINISHED_SECONDS + _DAY)
    old = (datasets.c.state == DatasetState.DELETED, datasets.c.created_at < before)
    named = [datasets.c.id.not_in(select(table.c.dataset)) for table in (jobs, versions)]
    found = select(datasets.c.id, datasets.c.key, datasets.c.upload).where(*old, *named).order_by(func.random())

    def forget(row: Row[Any, Any, Any]) -> None:
        forget_bytes(services.objects, row.key, row.upload)  # a deletion may have been cut off
        with services.store.begin() as connection:
            gone = delete(datasets).where(datasets.c.id == row.id, *old, *named).returning(datasets.c.checks)
            checks = connection.execute(gone).scalar()
            _keep_count(connection, GIVEN_UP_KIND, int(checks is not None and checks > MOST_CHECKS))

    _each_found(services, found, forget)


def checkpoints_superseded(services: Services) -> None:
    """Keep the newest checkpoints of live jobs, and none of jobs that are final."""
    with services.store.read() as connection:
        found = select(checkpoints.c.job, checkpoints.c.step, checkpoints.c.files, jobs.c.state)
        rows = connection.execute(
            found.join(jobs, jobs.c.id == checkpoints.c.job).order_by(checkpoints.c.job, checkpoints.c.step.desc())
        ).all()
    seen: Counter[str] = Counter()
    superseded = []
    for row in rows:
        seen[row.job] += 1
        if row.state in FINAL or seen[row.job] > _KEPT_CHECKPOINTS:
            superseded.append(row)

    def forget(row: Row[Any, Any, Any, Any]) -> None:
        with services.store.begin() as connection:
            same = (checkpoints.c.job == row.job, checkpoints.c.step == row.step)
            connection.execute(delete(checkpoints).where(*same))
            gone = upload.retire(connection, row.files.values())
        for key in gone:  # an address of an upload may be valid for an hour
            services.objects.empty(key)

    each(superseded, forget)


def jobs_old(services: Services) -> None:
    """Delete old final jobs, with all rows and files of the jobs."""
    now = services.clock.now()
    over = (jobs.c.state.in_(FINAL), jobs.c.ended_at < now - services.config.keep_days * _DAY)
    # The job of a version stays: the version's files and lineage are the job's.
    kept = select(versions.c.job)
    billed_later = select(attempts.c.job).where(settle.unsettled(), attempts.c.gone_at > now - _REMAINS_SECONDS)
    found = select(jobs.c.id).where(*over, jobs.c.id.not_in(kept), jobs.c.id.not_in(billed_later))
    with services.store.read() as connection:
        old = connection.execute(found.order_by(func.random()).limit(_AT_ONCE)).scalars().all()

    def forget(job: str) -> None:
        with services.store.begin() as connection:
            event.lock(connection, job)
            if connection.execute(found.where(jobs.c.id == job)).first() is None:  # a version since the look
                return
            files = connection.execute(select(uploads.c.id, uploads.c.key).where(uploads.c.job == job)).all()
            upload.retire(connection, [file for file, _ in files])
        try:
            _forget_job(services, job, files)
        except LauncherAwayError as error:  # the rows stay until the platform answers
            _log_away("sweep_jobs", error)

    each(old, forget)


def _forget_job(services: Services, job: str, files: Sequence[Row[Any, Any]]) -> None:
    with services.store.read() as connection:
        machines = select(attempts.c.launcher, attempts.c.name, attempts.c.handle).where(attempts.c.job == job)
        rows = connection.execute(machines).all()
    each(files, functools.partial(_forget_file, services))
    for launcher, name, handle in rows:
        _forget_machine(services, launcher, Handle(name, handle))
    _forget_many(services, job)
    with services.store.begin() as connection:
        counted = select(events.c.kind, func.count()).where(events.c.job == job).group_by(events.c.kind)
        for kind, count in connection.execute(counted.order_by(events.c.kind)).all():
            _keep_count(connection, f"event:{kind}", count)
        for name, spent in zip(("seconds", "usd"), machines_gone(connection, attempts.c.job == job), strict=True):
            for cause, amount in sorted(spent.items()):
                _keep_count(connection, f"{name}:{cause}", amount)
        for basis, amount in machines_settled(connection, attempts.c.job == job).items():
            _keep_count(connection, f"settled:{basis}", amount)
        for table in (events, measurements, checkpoints, attempts):
            connection.execute(delete(table).where(table.c.job == job))
        connection.execute(delete(tokens).where(tokens.c.job == job))
        connection.execute(delete(jobs).where(jobs.c.id == job))


def _forget_many(services: Services, job: str) -> None:
    """Delete the measurements of a job, some thousand in a transaction: a job may have millions."""
    key = (measurements.c.name, measurements.c.step)
    full = True
    while full:
        with services.store.begin() as connection:
            some = select(*key).where(measurements.c.job == job).limit(_MEASUREMENTS_AT_ONCE)
            same = (measurements.c.job == job, tuple_(*key).in_(some))
            full = connection.execute(delete(measurements).where(*same)).rowcount == _MEASUREMENTS_AT_ONCE


def machines_stray(services: Services) -> None:
    """End machines of this plane without a live attempt, and second machines of one attempt; others are left alone."""
    for launcher in services.machines.launchers.values():
        try:
            found = [one for one in launcher.mine() if services.machines.is_ours(one.name)]
        except LauncherAwayError as error:
            _log_away("reap_machines", error)
            continue
        each(_strays(services, found), functools.partial(_end_stray, services, launcher))


def _end_stray(services: Services, launcher: Launcher, machine: Handle) -> None:
    _write_stray(services, machine)
    try:
        launcher.stop(machine, now=True)
    except LauncherAwayError as error:
        _log_away("reap_machines", error, machine.name)


def _write_stray(services: Services, machine: Handle) -> None:
    """Write the machine's event, once, before the machine's end: the settlement finds the bill by the event."""
    said = {"machine": machine.name, "id": machine.id}
    with services.store.begin() as connection:
        owner = connection.execute(select(attempts.c.job, attempts.c.n).where(attempts.c.name == machine.name)).first()
        if owner is None:
            return
        event.lock(connection, owner.job)
        same = (events.c.job == owner.job, events.c.attempt == owner.n, events.c.kind == settle.ORPHAN)
        if said not in connection.execute(select(events.c.data).where(*same)).scalars().all():
            event.append(connection, owner.job, owner.n, services.clock.now(), settle.ORPHAN, **said)


def _strays(services: Services, found: Sequence[Handle]) -> list[Handle]:
    """The machines that no live attempt owns. The list of machines is older than this look at the store."""
    names = [machine.name for machine in found]
    with services.store.read() as connection:
        live = select(attempts.c.name, attempts.c.handle)
        rows = connection.execute(live.where(attempts.c.name.in_(names), attempts.c.state != AttemptState.GONE)).all()
    owned = {row.name: row.handle for row in rows}
    return [one for one in found if one.name not in owned or owned[one.name] not in {"", one.id}]


def machines_remains(services: Services) -> None:
    """Delete the remains of machines an hour after their end: a copy of the dataset is among these.

    A machine with a price keeps its remains until the bill is settled: dstack keeps the cost in the record of the run.
    """
    now = services.clock.now()
    over = (
        attempts.c.gone_at < now - _KEPT_REMAINS_SECONDS,
        attempts.c.gone_at > now - _REMAINS_SECONDS,
        not_(settle.unsettled()),
    )
    with services.store.read() as connection:
        rows = connection.execute(select(attempts.c.launcher, attempts.c.name, attempts.c.handle).where(*over)).all()

    def forget(row: Row[Any, Any, Any]) -> None:
        launcher, name, handle = row
        try:
            _forget_machine(services, launcher, Handle(name, handle))
        except LauncherAwayError as error:
            _log_away("sweep_machines", error, name)

    each(rows, forget)


def _log_away(duty: str, error: LauncherAwayError, machine: str = "") -> None:
    log.warning("platform away", extra=fields(duty=duty, machine=machine, reason=str(error)))


def _forget_machine(services: Services, launcher: str, machine: Handle) -> None:
    """Delete a machine's remains. A launcher that the configuration no longer has keeps its remains."""
    if launcher in services.machines.launchers:
        services.machines.launcher(launcher).forget(machine)


def _each_found(services: Services, found: Select[Any], forget: Callable[[Any], None]) -> None:
    """Forget the rows, some hundred at a time, until fewer are found."""
    full = True
    while full:
        with services.store.read() as connection:
            rows = connection.execute(found.limit(_AT_ONCE)).all()
        each(rows, forget)
        full = len(rows) == _AT_ONCE


def _forget_file(services: Services, row: tuple[str, str]) -> None:
    file, key = row
    services.objects.delete(key)
    with services.store.begin() as connection:
        connection.execute(delete(uploads).where(uploads.c.id == file))


def _keep_count(connection: Connection, kind: str, count: float) -> None:
    if not count:
        return
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = insert(totals).values(kind=kind, swept=count)
    total = {"swept": totals.c.swept + count}
    connection.execute(statement.on_conflict_do_update(index_elements=["kind"], set_=total))
