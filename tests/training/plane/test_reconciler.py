"""Workers killed between any two statements, on both databases: every job ends once, on one machine at a time."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select, update
from sqlalchemy import event as engine_events
from sqlalchemy.exc import OperationalError

from tests.training.plane.conftest import NOW
from tests.training.plane.forks import Forks
from training.plane import budget, database, event, jobs, reconciler, reports, terms
from training.plane.clock import Clock
from training.plane.database import Database
from training.plane.launcher import (
    AnswerLostError,
    Handle,
    LaunchError,
    LaunchImpossibleError,
    Made,
    Offer,
    PodSpec,
    Presence,
    Seen,
    Wanted,
)
from training.plane.launchers.process import ProcessLauncher
from training.plane.machines import Machines
from training.plane.reconciler import Plane, Reconciler
from training.plane.schema import attempts, events, tokens
from training.plane.schema import jobs as table
from training.plane.token import Holder

SCRIPT = 'echo ran; echo "$JOB_ID $ATTEMPT" >> ../../../ran; sleep "${NAP:-0}"\n'
# A worker that dies by SIGKILL after so many calls of the store, the launcher and the disk of its own.
WORKER = """
import os, signal
from pathlib import Path
from training.plane import database, event, jobs
from training.plane.clock import Clock
from training.plane.database import Database
from training.plane.launchers.process import ProcessLauncher
from training.plane.machines import Machines
from training.plane.reconciler import Plane, Reconciler

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
    (jobs, ("read", "move", "request", "ask", "made", "mark", "bury", "retry", "finish", "_attempt")),
    (ProcessLauncher, ("launch", "look", "_start")),
):
    for name in names:
        setattr(module, name, fragile(getattr(module, name)))

def run(url, folder, calls):
    global left
    left = int(calls)
    launcher = ProcessLauncher(Path(folder, "machines"), Path(folder, "script.sh"))
    machines = Machines("mi", {"process": launcher})
    hands = Reconciler(Database(url), machines, Plane("http://127.0.0.1:1"), "w", Clock())
    while hands.turn():
        pass
"""


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks(WORKER) as made:
        yield made


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[ProcessLauncher]:
    (tmp_path / "script.sh").write_text(SCRIPT)
    made = ProcessLauncher(tmp_path / "machines", tmp_path / "script.sh")
    yield made
    for machine in made.mine():
        made.stop(machine, now=True)


class Ahead(Clock):
    """A clock that the test puts forward past leases and waits."""

    def __init__(self, start: float | None = None) -> None:
        """Stand at the Unix time `start`, or run on from now."""
        self.offset = 0.0
        super().__init__(wall=lambda: (time.time() if start is None else start) + self.offset)


def hands(store: Database, launcher: ProcessLauncher, clock: Clock) -> Reconciler:
    machines = Machines("mi", {"process": launcher})
    return Reconciler(store, machines, Plane("http://127.0.0.1:1", budget_usd=50.0), "survivor", clock)


def settle(store: Database, launcher: ProcessLauncher, job: str, done: Callable[[str], bool]) -> str:
    """Turn until the job is done, past the leases of dead workers."""
    clock = Ahead()
    worker = hands(store, launcher, clock)
    end = time.monotonic() + 60
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


def test_workers_that_find_room_at_once_make_no_more_machines_than_there_is_room_for(
    store: Database, add_job: Callable[..., str], launcher: ProcessLauncher, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Each worker counted the machines before any of them had written its own down."""
    (tmp_path / "script.sh").write_text("sleep 600")
    counted, all_counted, count = threading.local(), threading.Barrier(4), jobs.machines

    def machines(connection: Connection) -> int:
        found = count(connection)
        if not getattr(counted, "once", False):
            counted.once = True
            all_counted.wait(60)
        return found

    monkeypatch.setattr(jobs, "machines", machines)
    for _ in range(4):
        add_job()
    known, plane = Machines("mi", {"process": launcher}), Plane("http://127.0.0.1:1", max_machines=2)
    workers = [Reconciler(store, known, plane, f"w{n}", Clock()) for n in range(4)]
    threads = [threading.Thread(target=worker.turn) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with store.read() as connection:
        assert count(connection) == 2
    assert len(launcher.mine()) == 2


def test_a_worker_killed_between_any_two_statements_loses_nothing_and_starts_nothing_twice(
    store: Database, add_job: Callable[..., str], url: str, launcher: ProcessLauncher, tmp_path: Path, forks: Forks
) -> None:
    deaths = range(1, 40, 4)
    for died_at in deaths:
        job = add_job(max_attempts=1)
        [(code, _)] = forks.run((url, tmp_path, died_at))
        assert code in {-signal.SIGKILL, 0}
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


def test_a_wait_for_the_store_shortens_no_lease(
    store: Database, add_job: Callable[..., str], launcher: ProcessLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker whose lease was renewed from the time before the wait worked on without one."""
    add_job()
    clock, renewed, write = Ahead(), list[float](), database.write

    def noted(connection: Connection, lease: database.Lease, now: float, values: dict[str, object]) -> None:
        renewed.append(clock.now() - now)
        write(connection, lease, now, values)

    monkeypatch.setattr(database, "write", noted)
    engine_events.listen(store.engine, "begin", lambda _: setattr(clock, "offset", clock.offset + 20.0))
    hands(store, launcher, clock).turn()
    assert len(renewed) > 2
    assert max(renewed) < 20.0


def test_a_slow_worker_that_lost_its_lease_changes_nothing(
    store: Database, add_job: Callable[..., str], launcher: ProcessLauncher
) -> None:
    job = add_job()
    clock = Ahead()
    slow = hands(store, launcher, Clock())
    taken = launcher.launch

    def overtaken(*arguments: object) -> Made:
        """While the slow worker launches, its lease ends and another worker goes on."""
        machine = taken(*arguments)
        clock.offset += 31.0
        launcher.launch = taken
        hands(store, launcher, clock).turn()
        return machine

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
    job, worker = add_job(), hands(store, launcher, Ahead(NOW))

    def away(*_: object) -> None:
        raise OperationalError("SELECT 1", {}, ConnectionError())

    monkeypatch.setattr(jobs, "read", away)
    with pytest.raises(OperationalError):
        worker.turn()
    monkeypatch.undo()
    assert not worker.turn()  # the row is given back, due in a second
    with store.begin() as connection:
        assert connection.execute(select(table.c.lease_token).where(table.c.id == job)).scalar() is None


class Broken(ProcessLauncher):
    """A bug in the look at each machine."""

    def look(self, handle: Handle) -> Seen:
        raise ZeroDivisionError


def test_a_job_with_a_bug_is_tried_some_times_then_fails_without_a_live_machine(
    store: Database, add_job: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job was tried every 30 s, without an end."""
    monkeypatch.setattr(reconciler, "MOST_TRIES", 3)
    broken, other = add_job(), add_job()
    (tmp_path / "script.sh").write_text("sleep 600")
    machines = Machines("mi", {"process": Broken(tmp_path / "machines", tmp_path / "script.sh")})
    at = [NOW]
    worker = Reconciler(store, machines, Plane("http://127.0.0.1:1", 64), "w", Clock(lambda: at[0]))
    with store.begin() as connection:
        connection.execute(update(table).where(table.c.id == other).values(due_at=None))
        running = {
            "job": broken, "n": 1, "name": "mi-x-1", "state": "running", "requested_at": NOW, "created_at": NOW,
            "starts": 1, "step": 0, "deadline": NOW + 60, "launcher": "process", "usd_per_hour": 3600.0,
        }  # fmt: skip
        connection.execute(insert(attempts).values(**running))
        connection.execute(update(table).where(table.c.id == broken).values(state="running", attempt=1))
    for pause in (30.0, 60.0, 120.0):
        with pytest.raises(ZeroDivisionError):
            worker.turn()
        at[0] += pause - 1.0
        assert not worker.turn()
        at[0] += 2.0
    assert worker.turn()
    assert not worker.turn()
    with store.read() as connection:
        job = connection.execute(select(table).where(table.c.id == broken)).mappings().one()
        attempt = connection.execute(select(attempts).where(attempts.c.job == broken)).mappings().one()
        spent = budget.spent(connection, broken)
        told = [one.kind for one in event.after(connection, broken, 0, 10)]
    why = "3 tries ended without an answer; the log of the plane has the error"
    assert (job["state"], job["reason"], job["tries"]) == ("failed", why, 0)
    assert (attempt["state"], attempt["cause"], spent) == ("gone", "given_up", pytest.approx(213.0))
    assert told[-2:] == ["given_up", "failed"]


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
    end = time.monotonic() + 60
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


class Renting(ProcessLauncher):
    """A platform with one offer, whose answers to requests for a machine the test chooses. Machines are not listed."""

    def __init__(self, folder: Path, *answers: Exception | Made) -> None:
        super().__init__(folder)
        self.answers = list(answers)
        self.asked = 0

    def offers(self, wanted: Wanted) -> list[Offer]:
        return [Offer("L4", 0.4)]

    def look(self, machine: Handle) -> Seen:
        return Seen(Presence.RUNNING, id=machine.id) if machine.id else Seen(Presence.ABSENT, hidden_seconds=120.0)

    def launch(self, name: str, offer: Offer, pod: PodSpec) -> Made:
        self.asked += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_platform_that_asks_for_an_hours_patience_is_not_asked_at_once(
    store: Database, add_job: Callable[..., str], tmp_path: Path
) -> None:
    add_job()
    launcher = Renting(tmp_path, LaunchError("slower", 3600.0))
    worker = hands(store, launcher, Ahead())
    assert [worker.turn() for _ in range(3)] == [True, False, False]
    assert launcher.asked == 1


def test_a_refusal_that_repeats_the_request_tells_no_token(
    store: Database, add_job: Callable[..., str], tmp_path: Path
) -> None:
    class Echoing(Renting):
        def launch(self, name: str, offer: Offer, pod: PodSpec) -> Made:
            raise LaunchImpossibleError(f"platform answered 422: the value {dict(pod.environment)} is wrong")

    job = add_job()
    hands(store, Echoing(tmp_path), Ahead()).turn()
    with store.read() as connection:
        reason = connection.execute(select(table.c.reason).where(table.c.id == job)).scalar_one()
        told = connection.execute(select(events.c.data).where(events.c.job == job)).scalars().all()
    assert "'JOB_TOKEN': '(token)'" in reason
    assert f"'JOB_ID': '{job}'" in reason
    assert any(reason.endswith(one.get("reason", "none")) for one in told)
    assert "(token)" in next(one["reason"] for one in told if "offer" in one)


@pytest.mark.parametrize("max_usd", [None, 0.2])
def test_a_machine_that_a_lost_answer_may_have_made_is_reserved_for(
    store: Database, add_job: Callable[..., str], tmp_path: Path, max_usd: float | None
) -> None:
    # Budgets are those of a month, and NOW is in the middle of one.
    job, clock = add_job(max_seconds=3600.0, max_usd=max_usd), Ahead(NOW)
    worker = hands(store, Renting(tmp_path, AnswerLostError("no answer"), Made("p2")), clock)
    for seconds in (0.0, 119.0, 3.0):
        clock.offset += seconds
        while worker.turn():
            pass
    with store.read() as connection:
        row = connection.execute(select(attempts).where(attempts.c.job == job)).mappings().one()
        held = budget.account(connection, "desk", clock.now(), 50.0).reserved
    doubt = 0.4 * (122.0 + terms.REAP_SECONDS) / 3600.0
    assert row["handle"] == "p2"
    assert row["usd_doubted"] == pytest.approx(doubt)
    assert row["usd_reserved"] == pytest.approx(held) == pytest.approx(max_usd or 0.5 + doubt)
    assert row["deadline"] - row["asked_at"] == pytest.approx((held - row["usd_doubted"]) / 0.4 * 3600.0)


def test_a_machine_that_ends_before_any_look_has_shown_it_is_charged(
    store: Database, add_job: Callable[..., str], tmp_path: Path
) -> None:
    job, clock = add_job(max_attempts=1), Ahead()
    worker, holder = hands(store, Renting(tmp_path, AnswerLostError("no answer")), clock), Holder("desk", job, 1)
    assert worker.turn()
    with store.begin() as connection:
        asked = connection.execute(select(attempts.c.asked_at).where(attempts.c.job == job)).scalar_one()
        reports.start(connection, holder, asked + 10.0)
        reports.end(connection, holder, 1, 0, "", asked + 20.0)
    clock.offset += 25.0
    assert worker.turn()
    with store.read() as connection:
        row = connection.execute(select(attempts).where(attempts.c.job == job)).mappings().one()
        spent = budget.spent(connection, job)
    assert (row["state"], row["created_at"]) == ("gone", asked)
    assert spent == pytest.approx(0.4 * (row["gone_at"] - asked) / 3600.0)
    assert spent > 0.4 * 20.0 / 3600.0


def test_a_machine_that_is_found_late_is_paid_from_the_first_request(
    store: Database, add_job: Callable[..., str], tmp_path: Path
) -> None:
    job, clock = add_job(), Ahead(NOW)
    launcher = Renting(tmp_path, AnswerLostError("no answer"), AnswerLostError("no answer"))
    worker = hands(store, launcher, clock)
    for seconds in (0.0, 122.0):
        clock.offset += seconds
        while worker.turn():
            pass
    launcher.look = lambda machine: Seen(Presence.RUNNING, id="p1")
    clock.offset += 3.0
    worker.turn()
    with store.read() as connection:
        row = connection.execute(select(attempts).where(attempts.c.job == job)).mappings().one()
    assert (launcher.asked, row["handle"]) == (2, "p1")
    assert row["created_at"] == row["unanswered_at"] == NOW
    assert row["asked_at"] == NOW + 122.0
