"""Workers killed between any two statements, on both databases: every job ends once, on one machine at a time."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from training.plane import event, jobs, reports
from training.plane.clock import Clock
from training.plane.database import Database
from training.plane.launchers.process import ProcessLauncher
from training.plane.reconciler import Plane, Reconciler
from training.plane.schema import attempts, events, tokens
from training.plane.schema import jobs as table
from training.plane.token import Holder

SCRIPT = 'echo ran; echo "$JOB_ID $ATTEMPT" >> ../../../ran; sleep "${NAP:-0}"\n'
# A worker that dies by SIGKILL after so many calls of the store, the launcher and the disk of its own.
WORKER = """
import os, signal, sys
from pathlib import Path
from training.plane import database, event, jobs
from training.plane.clock import Clock
from training.plane.database import Database
from training.plane.launchers.process import ProcessLauncher
from training.plane.reconciler import Plane, Reconciler

url, folder, left = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])

def fragile(function):
    def call(*arguments, **named):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        found = function(*arguments, **named)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return found
    return call

for module, names in (
    (database, ("claim", "write", "release")),
    (event, ("append",)),
    (jobs, ("read", "move", "request", "job_token", "mark", "bury", "retry", "finish", "_attempt")),
    (ProcessLauncher, ("launch", "look", "_start")),
):
    for name in names:
        setattr(module, name, fragile(getattr(module, name)))
launcher = ProcessLauncher(folder / "machines", folder / "script.sh")
hands = Reconciler(Database(url), launcher, Plane("mi", "http://127.0.0.1:1"), "w", Clock())
while hands.turn():
    pass
print("survived")
"""


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[ProcessLauncher]:
    (tmp_path / "script.sh").write_text(SCRIPT)
    made = ProcessLauncher(tmp_path / "machines", tmp_path / "script.sh")
    yield made
    for name in made.mine():
        made.stop(name, now=True)


class Ahead(Clock):
    """A clock that the test puts forward past leases and waits."""

    def __init__(self) -> None:
        self.offset = 0.0
        super().__init__(wall=lambda: time.time() + self.offset)


def hands(store: Database, launcher: ProcessLauncher, clock: Clock) -> Reconciler:
    return Reconciler(store, launcher, Plane("mi", "http://127.0.0.1:1"), "survivor", clock)


def settle(store: Database, launcher: ProcessLauncher, job: str, done: Callable[[str], bool]) -> str:
    """Turn until the job is done, past the leases of dead workers."""
    clock = Ahead()
    worker = hands(store, launcher, clock)
    end = time.monotonic() + 30
    while True:
        while worker.turn():
            pass
        with store.begin() as connection:
            state = str(connection.execute(select(table.c.state).where(table.c.id == job)).scalar_one())
        if done(state):
            return state
        assert time.monotonic() < end, state
        clock.offset += 31.0
        time.sleep(0.02)


def test_a_worker_killed_between_any_two_statements_loses_nothing_and_starts_nothing_twice(
    store: Database, add_job: Callable[..., str], url: str, launcher: ProcessLauncher, tmp_path: Path
) -> None:
    deaths = range(1, 40, 4)
    for died_at in deaths:
        job = add_job(max_attempts=1)
        ran = subprocess.run(
            [sys.executable, "-c", WORKER, url, str(tmp_path), str(died_at)], capture_output=True, text=True
        )
        assert ran.returncode in {-signal.SIGKILL, 0}, ran.stderr
        # The script reports nothing, so that the attempt ends as lost and is tried again; a cancel ends the job.
        settle(store, launcher, job, lambda state: state == "queued" or (tmp_path / "ran").exists())
        with store.begin() as connection:
            jobs.cancel(connection, "desk", job, time.time())
        assert settle(store, launcher, job, lambda state: state in {"cancelled", "failed"}) == "cancelled"
        with store.begin() as connection:
            tried = connection.execute(select(attempts).where(attempts.c.job == job)).mappings().all()
            kinds = [one.kind for one in event.after(connection, job, 0, 500)]
        assert {one["state"] for one in tried} <= {"gone"}
        assert kinds.count("cancelled") == 1
        assert launcher.mine() == []
    started = (tmp_path / "ran").read_text().splitlines()
    assert len(started) == len(set(started)), "an attempt was started twice"


def test_a_slow_worker_that_lost_its_lease_changes_nothing(
    store: Database, add_job: Callable[..., str], launcher: ProcessLauncher
) -> None:
    job = add_job()
    clock = Ahead()
    slow = hands(store, launcher, Clock())
    taken = launcher.launch

    def overtaken(*arguments: object) -> None:
        """While the slow worker launches, its lease ends and another worker goes on."""
        taken(*arguments)
        clock.offset += 31.0
        launcher.launch = taken
        hands(store, launcher, clock).turn()

    launcher.launch = overtaken
    assert slow.turn()
    with store.begin() as connection:
        tried = connection.execute(select(attempts).where(attempts.c.job == job)).mappings().all()
        rows = connection.execute(select(events.c.kind).where(events.c.job == job)).scalars().all()
    assert len(tried) >= 1
    assert rows.count("launching") == len(tried)


def test_a_row_is_given_back_once_the_database_is_there_again(
    store: Database, add_job: Callable[..., str], launcher: ProcessLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, worker = add_job(), hands(store, launcher, Ahead())

    def away(*_: object) -> None:
        raise OperationalError("SELECT 1", {}, ConnectionError())

    monkeypatch.setattr(jobs, "read", away)
    with pytest.raises(OperationalError):
        worker.turn()
    monkeypatch.undo()
    assert not worker.turn()  # the row is given back, due in a second
    with store.begin() as connection:
        assert connection.execute(select(table.c.lease_token).where(table.c.id == job)).scalar() is None


def test_tokens_end_with_the_attempt(store: Database, add_job: Callable[..., str], launcher: ProcessLauncher) -> None:
    job = add_job()
    settle(store, launcher, job, lambda state: state == "queued")
    with store.begin() as connection:
        found = connection.execute(select(tokens).where(tokens.c.job == job, tokens.c.attempt == 1)).mappings().all()
    assert found
    assert all(one["revoked_at"] is not None for one in found)


def test_a_launch_that_fails_is_told_and_tried_again(
    store: Database, add_job: Callable[..., str], launcher: ProcessLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = add_job()
    monkeypatch.setenv("PATH", "/nonexistent")
    hands(store, launcher, Clock()).turn()
    with store.begin() as connection:
        kinds = [one.kind for one in event.after(connection, job, 0, 50)]
    assert kinds[-1] == "launch_failed"
    monkeypatch.undo()
    settle(store, launcher, job, lambda state: state == "queued")


def test_a_machine_that_goes_silent_is_ended_by_force_and_replaced(
    store: Database, add_job: Callable[..., str], launcher: ProcessLauncher, tmp_path: Path
) -> None:
    (tmp_path / "script.sh").write_text("trap '' TERM; while :; do sleep 0.1; done")
    job = add_job()
    clock = Ahead()
    worker = hands(store, launcher, clock)
    worker.turn()
    with store.begin() as connection:
        reports.start(connection, Holder("desk", job, 1), clock.now())
    for seconds in (3.0, 601.0, 1.0, 31.0, 1.0):
        clock.offset += seconds
        clock.now()
        clock.steady_since = 0.0  # the test's clock runs fast, and has not jumped
        while worker.turn():
            pass
    end = time.monotonic() + 20
    while not (states := tried(store, job)) or states[0] != ("gone", "silent"):
        assert time.monotonic() < end, states
        clock.offset += 1.0
        worker.turn()
        time.sleep(0.02)
    with store.begin() as connection:
        kinds = [one.kind for one in event.after(connection, job, 0, 100)]
    assert kinds.index("stopping") < kinds.index("gone") < kinds.index("retry")


def tried(store: Database, job: str) -> list[tuple[str, str]]:
    """State and cause of each attempt."""
    with store.begin() as connection:
        return [(one["state"], one["cause"]) for one in jobs.attempts_of(connection, job)]
