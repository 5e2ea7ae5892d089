"""Prometheus metrics, read from the store: each worker answers the same figures, for all workers and restarts.

Owns the names. Counters are counted from append-only rows, plus the deleted rows, counted by the sweep. A dashboard
takes the maximum over workers, never the sum.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import ColumnElement, Connection, func, select

from training.plane import budget
from training.plane.checker import MOST_CHECKS
from training.plane.database import Database
from training.plane.job import FINAL, AttemptState
from training.plane.jobs import GIVEN_UP as GIVEN_UP_JOB
from training.plane.model_tables import promotions, versions
from training.plane.promotion import Action, Cause
from training.plane.schema import attempts, datasets, duties, events, jobs, ledger, tokens, totals
from training.plane.versions import FAILED

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TOKEN_STATES = ("used", "revoked")
GIVEN_UP_KIND: Final = "dataset:given_up"
"""In `totals`: deleted rows that GIVEN_UP has counted."""


@dataclass(frozen=True, slots=True)
class Family:
    """A metric with at most one label."""

    name: str
    text: str
    label: str = ""
    counter: bool = False

    def of(self, values: Mapping[str, float]) -> Metric:
        """The family with a sample for each value of the label."""
        kind = CounterMetricFamily if self.counter else GaugeMetricFamily
        made = kind(self.name, self.text, labels=[self.label] if self.label else [])
        for value, number in sorted(values.items()):
            made.add_metric([value] if self.label else [], number)
        return made


EVENTS: Final = Family("market_training_events", "What happened to jobs.", "kind", counter=True)
SECONDS: Final = Family("market_training_machine_seconds", "Run time of machines that are gone.", "cause", counter=True)
USD: Final = Family("market_training_machine_usd", "Cost of gone machines by the agreed price.", "cause", counter=True)
SETTLED: Final = Family(
    "market_training_settled_usd", "Machines with a bill: what was agreed, and what was billed.", "basis", counter=True
)
RESERVED: Final = Family("market_training_reserved_usd", "Reserved for machines that live.")
TOKENS: Final = Family("market_training_tokens", "Download tokens that were used or revoked.", "outcome", counter=True)
ROLLBACKS: Final = Family("market_training_rollbacks", "Versions taken out of service.", "cause", counter=True)
JOBS: Final = Family("market_training_jobs", "Jobs by state.", "state")
DATASETS: Final = Family("market_training_datasets", "Datasets by state.", "state")
GIVEN_UP: Final = Family(
    "market_training_datasets_given_up", "Datasets refused because no check ended with an answer.", counter=True
)
VERSIONS: Final = Family("market_training_versions", "Versions of models by state.", "state")
MACHINES: Final = Family("market_training_machines", "Machines not yet seen gone.")
LAG: Final = Family("market_training_lag_seconds", "How long the job that is due first has been due.")
DUTY_AGE: Final = Family("market_training_duty_age_seconds", "Time since a duty last went well.", "duty")
DISK: Final = Family("market_training_disk_bytes", "Bytes of the folder's disk: free, and left by uploads.", "kind")
FAMILIES: Final = (
    EVENTS, SECONDS, USD, SETTLED, RESERVED, TOKENS, ROLLBACKS, JOBS, DATASETS, GIVEN_UP, VERSIONS, MACHINES, LAG,
    DUTY_AGE, DISK,
)  # fmt: skip


def exposition(store: Database, now: float, disk: Mapping[str, float] = MappingProxyType({})) -> bytes:
    """The text that Prometheus reads. Raises sqlalchemy.exc.DBAPIError when the store is away."""
    registry = CollectorRegistry()
    registry.register(Figures(store, now, disk))
    found: bytes = generate_latest(registry)
    return found


class Figures(Collector):
    """The figures of a store at a time, and of a disk."""

    def __init__(self, store: Database, now: float, disk: Mapping[str, float] = MappingProxyType({})) -> None:
        self._store = store
        self._now = now
        self._disk = disk

    def describe(self) -> list[Metric]:
        return [family.of({}) for family in FAMILIES]

    def collect(self) -> Iterator[Metric]:
        yield DISK.of(self._disk)
        with self._store.read() as connection:
            swept = {row.kind: float(row.swept) for row in connection.execute(select(totals))}
            yield EVENTS.of(_events(connection, swept))
            seconds, usd = machines_gone(connection)
            yield SECONDS.of(_plus(seconds, swept, "seconds:"))
            yield USD.of(_plus(usd, swept, "usd:"))
            yield SETTLED.of(_plus(machines_settled(connection), swept, "settled:"))
            held = select(func.sum(ledger.c.usd)).where(ledger.c.kind.in_((budget.RESERVE, budget.RELEASE)))
            yield RESERVED.of({"": round(connection.execute(held).scalar() or 0.0, 6)})
            yield TOKENS.of({outcome: _tokens(connection, outcome, swept) for outcome in TOKEN_STATES})
            yield ROLLBACKS.of(_rollbacks(connection))
            for family, table in ((JOBS, jobs), (DATASETS, datasets), (VERSIONS, versions)):
                counted = select(table.c.state, func.count()).group_by(table.c.state)
                always = {FAILED: 0.0} if family is VERSIONS else {}
                yield family.of({**always, **dict(connection.execute(counted).all())})
            given_up = select(func.count()).select_from(datasets).where(datasets.c.checks > MOST_CHECKS)
            yield GIVEN_UP.of({"": connection.execute(given_up).scalar_one() + swept.get(GIVEN_UP_KIND, 0.0)})
            live = select(func.count()).select_from(attempts).where(attempts.c.state != AttemptState.GONE)
            yield MACHINES.of({"": connection.execute(live).scalar_one()})
            yield LAG.of({"": self._lag(connection)})
            last = connection.execute(select(duties.c.name, duties.c.last_ok_at)).all()
            yield DUTY_AGE.of({name: self._now - at for name, at in last if at is not None})

    def _lag(self, connection: Connection) -> float:
        waiting = (jobs.c.due_at > 0, jobs.c.state.not_in(FINAL))
        due = connection.execute(select(func.min(jobs.c.due_at)).where(*waiting)).scalar()
        return max(0.0, self._now - due) if due is not None else 0.0


def _events(connection: Connection, swept: Mapping[str, float]) -> dict[str, float]:
    counted = select(events.c.kind, func.count()).group_by(events.c.kind)
    found = {GIVEN_UP_JOB: 0.0, **{kind: float(count) for kind, count in connection.execute(counted)}}
    return _plus(found, swept, "event:")


def machines_gone(connection: Connection, *which: ColumnElement[bool]) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds and dollars of the machines that are gone, by cause."""
    lived = attempts.c.gone_at - attempts.c.created_at
    found = select(attempts.c.cause, func.sum(lived), func.sum(lived / 3600.0 * attempts.c.usd_per_hour))
    gone = (attempts.c.state == AttemptState.GONE, attempts.c.created_at.is_not(None), *which)
    rows = connection.execute(found.where(*gone).group_by(attempts.c.cause)).all()
    return {cause or "none": s or 0.0 for cause, s, _ in rows}, {cause or "none": usd or 0.0 for cause, _, usd in rows}


def machines_settled(connection: Connection, *which: ColumnElement[bool]) -> dict[str, float]:
    """Dollars of the machines with a bill, as agreed and as billed."""
    agreed = (attempts.c.gone_at - attempts.c.created_at) / 3600.0 * attempts.c.usd_per_hour
    found = select(func.sum(agreed), func.sum(attempts.c.usd_billed)).where(attempts.c.usd_billed.is_not(None), *which)
    sums = connection.execute(found).one()
    return {"agreed": sums[0] or 0.0, "billed": sums[1] or 0.0}


def _rollbacks(connection: Connection) -> dict[str, float]:
    counted = select(promotions.c.cause, func.count()).where(promotions.c.action == Action.ROLLBACK)
    found = {cause: float(count) for cause, count in connection.execute(counted.group_by(promotions.c.cause))}
    return {str(cause): found.get(cause, 0.0) for cause in Cause}


def _plus(found: dict[str, float], swept: Mapping[str, float], start: str) -> dict[str, float]:
    """The figures plus those of deleted rows, kept in `totals` under names with a common beginning."""
    for name, number in swept.items():
        if name.startswith(start):
            kind = name.removeprefix(start)
            found[kind] = found.get(kind, 0.0) + number
    return found


def _tokens(connection: Connection, outcome: str, swept: Mapping[str, float]) -> float:
    column = tokens.c[f"{outcome}_at"]
    found = select(func.count()).select_from(tokens).where(tokens.c.kind == "download", column.is_not(None))
    return float(connection.execute(found).scalar_one()) + swept.get(f"token:{outcome}", 0.0)
