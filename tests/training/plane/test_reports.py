"""What a machine reports again and again, on both databases: the store keeps a bounded part."""

import itertools
from collections.abc import Callable

import pytest
from sqlalchemy import insert, select, update

from tests.training.plane.conftest import NOW, OWNER
from training.plane import event, reports
from training.plane.database import Database
from training.plane.reports import Point, Report
from training.plane.schema import attempts, jobs, measurements
from training.plane.token import Holder


@pytest.fixture
def holder(store: Database, add_job: Callable[..., str]) -> Holder:
    """A machine that has not started yet."""
    job = add_job()
    row = {"job": job, "n": 1, "name": "m", "state": "running", "requested_at": NOW, "deadline": NOW + 60, "starts": 0}
    with store.begin() as connection:
        connection.execute(insert(attempts).values(**row, step=0))
        connection.execute(update(jobs).where(jobs.c.id == job).values(attempt=1))
    return Holder(OWNER, job, 1)


def test_starts_after_the_second_one_are_not_written_down(store: Database, holder: Holder) -> None:
    for _ in range(5):
        with store.begin() as connection:
            reports.start(connection, holder, NOW)
            again = reports.started_before(connection, holder)
    assert again
    with store.read() as connection:
        kinds = [one.kind for one in event.after(connection, holder.job, 0, 50)]
        assert kinds == ["created", "started", "started_again"]
        assert connection.execute(select(jobs.c.pokes)).scalar_one() == 2


def test_measurements_are_thinned_out(store: Database, holder: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "MOST_KEPT", 100)
    most = 0
    for first in range(0, 1000, 20):
        points = [Point(step, name, float(step), NOW) for step in range(first, first + 20) for name in ("loss", "rate")]
        with store.begin() as connection:
            reports.report(connection, holder, Report(points=[*points, Point(7, "once", 1.0, NOW)]), NOW)
            rows = connection.execute(select(measurements.c.name, measurements.c.step)).all()
        most = max(most, len(rows))
        assert {("loss", first + 19), ("rate", first + 19), ("once", 7)} <= set(rows)
    assert 50 < most <= 100
    steps = [0, *sorted(step for name, step in rows if name == "loss")]
    assert max(after - before for before, after in itertools.pairwise(steps)) <= 200  # the beginning stays, too
