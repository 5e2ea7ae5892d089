"""Scheduled deletion of tokens, unfinished uploads, checkpoints, old jobs, deleted bytes, stray machines.

Owns the order: bytes go before the row that names them, so that a sweep that is cut off is done again. Rows that
counters are counted from are added to `totals` in the same transaction.
"""

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from training.plane import event
from training.plane.dataset import DatasetState
from training.plane.duty import Duty
from training.plane.job import FINAL, AttemptState
from training.plane.metrics import TOKEN_STATES, machines_gone
from training.plane.schema import attempts, checkpoints, datasets, events, jobs, measurements, tokens, totals, uploads
from training.plane.services import Services

_DAY: Final = 86_400.0
_AT_ONCE: Final = 500
# Longer than a signed address for an upload is valid.
_UNFINISHED_SECONDS: Final = 6 * 3600.0
_KEPT_TOKEN_SECONDS: Final = _DAY
_KEPT_CHECKPOINTS: Final = 2
_KEPT_REMAINS_SECONDS: Final = 3600.0


def duties(services: Services) -> dict[str, Duty]:
    """The duties by name."""
    return {
        "sweep_tokens": Duty(600.0, lambda: tokens_ended(services)),
        "sweep_uploads": Duty(600.0, lambda: uploads_ended(services)),
        "sweep_datasets": Duty(600.0, lambda: datasets_unfinished(services)),
        "sweep_checkpoints": Duty(60.0, lambda: checkpoints_superseded(services)),
        "sweep_jobs": Duty(3600.0, lambda: jobs_old(services)),
        "sweep_machines": Duty(600.0, lambda: machines_remains(services)),
        "reap_machines": Duty(30.0, lambda: machines_stray(services)),
    }


def tokens_ended(services: Services) -> None:
    """Delete tokens a day after their end."""
    ended = tokens.c.expires_at < services.clock.now() - _KEPT_TOKEN_SECONDS
    with services.store.begin() as connection:
        for outcome in TOKEN_STATES:
            column = tokens.c[f"{outcome}_at"]
            found = select(func.count()).select_from(tokens)
            found = found.where(ended, tokens.c.kind == "download", column.is_not(None))
            _keep_count(connection, f"token:{outcome}", connection.execute(found).scalar_one())
        connection.execute(delete(tokens).where(ended))


def uploads_ended(services: Services) -> None:
    """Delete files after their time, complete or not."""
    with services.store.read() as connection:
        found = select(uploads.c.id, uploads.c.key).where(uploads.c.expires_at < services.clock.now()).limit(_AT_ONCE)
        rows = connection.execute(found).all()
    _forget(services, rows)


def datasets_unfinished(services: Services) -> None:
    """Refuse datasets without a completed upload, and delete the bytes that came."""
    before = services.clock.now() - _UNFINISHED_SECONDS
    waiting = (datasets.c.state == DatasetState.UPLOADING, datasets.c.created_at < before)
    with services.store.read() as connection:
        rows = connection.execute(select(datasets).where(*waiting).limit(_AT_ONCE)).mappings().all()
    for row in rows:
        if row["upload"]:
            services.objects.abort_parts(row["key"], row["upload"])
        services.objects.delete(row["key"])
        given_up = {"state": DatasetState.REFUSED, "reason": "the upload was not completed"}
        with services.store.begin() as connection:
            connection.execute(update(datasets).where(datasets.c.id == row["id"], *waiting).values(**given_up))


def checkpoints_superseded(services: Services) -> None:
    """Keep the newest checkpoints of live jobs, and none of jobs that are final."""
    with services.store.read() as connection:
        found = select(checkpoints.c.job, checkpoints.c.step, checkpoints.c.files, jobs.c.state)
        rows = connection.execute(
            found.join(jobs, jobs.c.id == checkpoints.c.job).order_by(checkpoints.c.job, checkpoints.c.step.desc())
        ).all()
    seen: dict[str, int] = {}
    for row in rows:
        place = seen.get(row.job, 0)
        seen[row.job] = place + 1
        if row.state in FINAL or place >= _KEPT_CHECKPOINTS:
            with services.store.begin() as connection:
                same = (checkpoints.c.job == row.job, checkpoints.c.step == row.step)
                connection.execute(delete(checkpoints).where(*same))
                files = select(uploads.c.id, uploads.c.key).where(uploads.c.id.in_(row.files.values()))
                gone = connection.execute(files).all()
            _forget(services, gone)


def jobs_old(services: Services) -> None:
    """Delete old final jobs, with all rows and files of the jobs."""
    before = services.clock.now() - services.config.keep_days * _DAY
    with services.store.read() as connection:
        found = select(jobs.c.id).where(jobs.c.state.in_(FINAL), jobs.c.ended_at < before).limit(_AT_ONCE)
        old = connection.execute(found).scalars().all()
    for job in old:
        _forget_job(services, job)


def _forget_job(services: Services, job: str) -> None:
    with services.store.read() as connection:
        files = connection.execute(select(uploads.c.id, uploads.c.key).where(uploads.c.job == job)).all()
        names = connection.execute(select(attempts.c.name).where(attempts.c.job == job)).scalars().all()
    _forget(services, files)
    for name in names:
        services.launcher.forget(name)
    with services.store.begin() as connection:
        counted = select(events.c.kind, func.count()).where(events.c.job == job).group_by(events.c.kind)
        for kind, count in connection.execute(counted.order_by(events.c.kind)).all():
            _keep_count(connection, f"event:{kind}", count)
        for name, spent in zip(("seconds", "usd"), machines_gone(connection, attempts.c.job == job), strict=True):
            for cause, amount in sorted(spent.items()):
                _keep_count(connection, f"{name}:{cause}", amount)
        for table in (events, measurements, checkpoints, attempts):
            connection.execute(delete(table).where(table.c.job == job))
        connection.execute(delete(tokens).where(tokens.c.job == job))
        connection.execute(delete(jobs).where(jobs.c.id == job))


def machines_stray(services: Services) -> None:
    """End machines of this plane without a live attempt."""
    names = [name for name in services.launcher.mine() if name.startswith(f"{services.config.name}-")]
    if not names:
        return
    with services.store.read() as connection:
        live = select(attempts.c.name).where(attempts.c.name.in_(names), attempts.c.state != AttemptState.GONE)
        known = set(connection.execute(live).scalars())
    for name in sorted(set(names) - known):
        services.launcher.stop(name, now=True)
        with services.store.begin() as connection:
            owner = connection.execute(select(attempts.c.job, attempts.c.n).where(attempts.c.name == name)).first()
            if owner is not None:
                event.append(connection, owner.job, owner.n, services.clock.now(), "orphan", machine=name)


def machines_remains(services: Services) -> None:
    """Delete the remains of machines an hour after their end: a copy of the dataset is among these."""
    now = services.clock.now()
    over = (attempts.c.gone_at < now - _KEPT_REMAINS_SECONDS, attempts.c.gone_at > now - 7 * _DAY)
    with services.store.read() as connection:
        names = connection.execute(select(attempts.c.name).where(*over)).scalars().all()
    for name in names:
        services.launcher.forget(name)


def _forget(services: Services, rows: Iterable[tuple[str, str]]) -> None:
    for upload, key in rows:
        services.objects.delete(key)
        with services.store.begin() as connection:
            connection.execute(delete(uploads).where(uploads.c.id == upload))


def _keep_count(connection: Connection, kind: str, count: float) -> None:
    if not count:
        return
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = insert(totals).values(kind=kind, swept=count)
    total = {"swept": totals.c.swept + count}
    connection.execute(statement.on_conflict_do_update(index_elements=["kind"], set_=total))
