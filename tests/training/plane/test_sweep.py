"""What the sweeps delete and what they keep, on both databases, with real files and machines."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import func, insert, select, update
from sqlalchemy.event import listens_for

from tests.training.plane.conftest import OWNER, add_dataset
from tests.training.plane.launchers.test_dstack import Dstack, serving
from tests.training.plane.models import add_version_job
from training.plane import budget, dataset, event, metrics, settle, sweep, token, upload, versions
from training.plane import jobs as job_rows
from training.plane.clock import Clock
from training.plane.config import Config
from training.plane.database import Database
from training.plane.duty import MOST_FAILURES, Duties, Duty, UndoneError, each
from training.plane.errors import ConflictError
from training.plane.folder import FolderObjects, ObjectExistsError
from training.plane.launcher import Handle, Offer, PodSpec, Presence
from training.plane.launchers.dstack import DstackLauncher
from training.plane.launchers.process import ProcessLauncher
from training.plane.machines import Machines
from training.plane.objects import ObjectMissingError, ObjectsAwayError
from training.plane.schema import attempts, checkpoints, datasets, duties, jobs, measurements, tokens, uploads
from training.plane.services import Services
from training.plane.signature import Signer
from training.plane.token import Holder
from training.plane.upload import NewUpload, UploadKind

DAY = 86_400.0


@pytest.fixture
def services(store: Database, tmp_path: Path) -> Iterator[Services]:
    (tmp_path / "script.sh").write_text("sleep 600")
    launcher = ProcessLauncher(tmp_path / "machines", tmp_path / "script.sh")
    signer = Signer(store)
    yield Services(
        config=Config(), store=store, objects=FolderObjects(tmp_path / "objects", signer, "http://127.0.0.1:1"),
        signer=signer, authenticator=SimpleNamespace(), machines=Machines("mi", {"process": launcher}), clock=Clock(),
    )  # fmt: skip
    for machine in launcher.mine():
        launcher.stop(machine, now=True)


def count(services: Services, table: object) -> int:
    with services.store.begin() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def figures(services: Services) -> dict[str, float]:
    text = metrics.exposition(services.store, time.time()).decode()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line[0] != "#"}


def add_file(
    services: Services, job: str, kind: UploadKind = UploadKind.ARTIFACT, lives: float = 60.0
) -> tuple[str, str]:
    """Id and key of a complete file."""
    now = time.time()
    with services.store.begin() as connection:
        new = NewUpload(kind, f"f{time.monotonic_ns()}", "0" * 64, 3)
        made = upload.declare(connection, Holder(OWNER, job, 1), new, now, 1000)
        upload.complete(connection, made.id, now, now + lives)
    services.objects.put(made.key, b"abc")
    return made.id, made.key


def there(services: Services, key: str) -> bool:
    try:
        return services.objects.size(key) > 0
    except ObjectMissingError:
        return False


def test_tokens_go_a_day_after_their_end_and_stay_counted(services: Services) -> None:
    now = time.time()
    with services.store.begin() as connection:
        old = token.issue(connection, token.DOWNLOAD, OWNER, now, now - 2 * DAY, dataset="D")
        token.issue(connection, token.DOWNLOAD, OWNER, now, now + 60, dataset="D")
        connection.execute(update(tokens).where(tokens.c.digest == token.digest(old)).values(used_at=now))
    before = figures(services)['market_training_tokens_total{outcome="used"}']
    sweep.tokens_ended(services)
    sweep.tokens_ended(services)
    assert count(services, tokens) == 1
    assert figures(services)['market_training_tokens_total{outcome="used"}'] == before == 1


def test_tokens_go_in_batches_and_revoked_ones_before_their_end(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One transaction for all held the lock of SQLite; a revoked token of a job stayed for its 30 days."""
    now = time.time()
    monkeypatch.setattr(sweep, "_AT_ONCE", 3)
    with services.store.begin() as connection:
        for _ in range(7):
            token.issue(connection, token.DOWNLOAD, OWNER, now, now + 30 * DAY, dataset="D")
        connection.execute(update(tokens).values(revoked_at=now - 2 * DAY))
        token.issue(connection, token.DOWNLOAD, OWNER, now, now + 30 * DAY, dataset="E")
    statements = count_of_deletes(services)
    sweep.tokens_ended(services)
    assert count(services, tokens) == 1
    assert len(statements) == 3
    assert figures(services)['market_training_tokens_total{outcome="revoked"}'] == 7


def count_of_deletes(services: Services) -> list[str]:
    """The DELETE statements from now on."""
    found: list[str] = []

    @listens_for(services.store.engine, "before_cursor_execute")
    def note(_: object, __: object, statement: str, *___: object) -> None:
        if statement.startswith("DELETE"):
            found.append(statement)

    return found


def test_rows_of_deleted_datasets_go_but_for_those_with_a_job(services: Services, add_job: Callable[..., str]) -> None:
    job = add_job()
    made = [add_dataset(services.store, state) for state in ("deleted", "deleted", "ready", "refused")]
    with services.store.begin() as connection:
        named = connection.execute(select(jobs.c.dataset).where(jobs.c.id == job)).scalar_one()
        connection.execute(update(datasets).values(created_at=time.time() - 31 * DAY))
        connection.execute(update(datasets).where(datasets.c.id == named).values(state="deleted"))
        connection.execute(update(datasets).where(datasets.c.id == made[0]).values(checks=6))
        connection.execute(update(datasets).where(datasets.c.id == made[1]).values(created_at=time.time() - 29 * DAY))
    services.objects.put(f"datasets/{made[0]}", b"left behind")
    before = figures(services)["market_training_datasets_given_up_total"]
    sweep.datasets_deleted(services)
    with services.store.read() as connection:
        assert set(connection.execute(select(datasets.c.id)).scalars()) == {named, *made[1:]}
    assert not there(services, f"datasets/{made[0]}")
    assert figures(services)["market_training_datasets_given_up_total"] == before == 1


@pytest.mark.parametrize("sweeping", [sweep.uploads_ended, sweep.jobs_old])
def test_a_version_that_is_made_while_a_sweep_is_at_work_keeps_its_files(
    services: Services, tmp_path: Path, sweeping: Callable[[Services], None]
) -> None:
    """The sweep deleted everything found at its first look, also the files and the job of a version made since."""

    class Watched(FolderObjects):
        """An object store; the first deletion takes as long as two registrations."""

        def delete(self, key: str) -> None:
            if not told:
                told.append(key)
                made.update({job: register(job) for job in made})
            super().delete(key)

    def register(job: str) -> bool:
        try:
            with services.store.begin() as connection:
                versions.register(connection, f"m{job.lower()}", rows[job], *found[job], time.time())
        except ConflictError:
            return False
        return True

    told: list[str] = []
    objects = Watched(tmp_path / "objects", services.signer, "http://127.0.0.1:1")
    services = dataclasses.replace(services, objects=objects)
    made = {
        add_version_job(services.store, objects, {"kind": "sentiment"}, b"", {"w": weights}): False
        for weights in (b"one", b"two")
    }
    old = time.time() - 31 * DAY
    with services.store.begin() as connection:
        connection.execute(update(jobs).values(ended_at=old))
        connection.execute(update(uploads).values(created_at=old, complete_at=old, expires_at=old + DAY))
        rows = {job: job_rows.get(connection, OWNER, job) for job in made}
        found = {job: versions.manifest_of(connection, objects, row) for job, row in rows.items()}
    sweeping(services)
    assert sorted(made.values()) == [False, True], "of the job whose files are being deleted no version is made"
    for job, accepted in made.items():
        keys = [file["key"] for file in found[job][1].values()]
        assert [there(services, key) for key in keys] == [accepted] * 2
        with services.store.read() as connection:
            left = connection.execute(select(jobs.c.id).where(jobs.c.id == job)).first() is not None
        assert left == (accepted or sweeping is sweep.uploads_ended)


def test_files_go_when_their_time_is_over(services: Services, add_job: Callable[..., str]) -> None:
    job = add_job()
    _, kept = add_file(services, job)
    _, old = add_file(services, job, lives=-1)
    sweep.uploads_ended(services)
    assert (there(services, kept), there(services, old), count(services, uploads)) == (True, False, 1)


def test_uploads_that_were_not_completed_are_given_up(services: Services) -> None:
    ready, waiting, fresh = (add_dataset(services.store, state) for state in ("ready", "uploading", "uploading"))
    with services.store.begin() as connection:
        long_ago = {"created_at": time.time() - DAY}
        connection.execute(update(datasets).where(datasets.c.id.in_([ready, waiting])).values(**long_ago))
        connection.execute(update(datasets).where(datasets.c.id == fresh).values(created_at=time.time()))
    sweep.datasets_unfinished(services)
    with services.store.begin() as connection:
        states = [dataset.get(connection, OWNER, one)["state"] for one in (ready, waiting, fresh)]
    assert states == ["ready", "refused", "uploading"]


def test_bytes_that_came_after_a_deletion_go_once_no_address_is_valid(services: Services) -> None:
    made = [add_dataset(services.store, state) for state in ("deleted", "deleted", "ready")]
    with services.store.begin() as connection:
        for one, hours in zip(made, (7, 1, 7), strict=True):
            aged = {"created_at": time.time() - hours * 3600.0}
            connection.execute(update(datasets).where(datasets.c.id == one).values(**aged))
        keys = [connection.execute(select(datasets.c.key).where(datasets.c.id == one)).scalar_one() for one in made]
    for key in keys:
        services.objects.put(key, b"late")
    sweep.datasets_deleted(services)
    assert [there(services, key) for key in keys] == [False, True, True]


def test_the_newest_two_checkpoints_of_a_live_job_stay(services: Services, add_job: Callable[..., str]) -> None:
    job, keys = add_job(), []
    for step in (1, 2, 3):
        file, key = add_file(services, job, UploadKind.CHECKPOINT)
        keys.append(key)
        with services.store.begin() as connection:
            row = {"job": job, "step": step, "attempt": 1, "files": {"f": file}, "complete_at": time.time()}
            connection.execute(insert(checkpoints).values(**row))
    sweep.checkpoints_superseded(services)
    assert [there(services, key) for key in keys] == [False, True, True]
    with services.store.begin() as connection:
        connection.execute(update(jobs).values(state="succeeded"))
    sweep.checkpoints_superseded(services)
    assert count(services, checkpoints) == 0
    for key in keys:  # the addresses of the uploads are valid for a while
        assert not there(services, key)
        with pytest.raises(ObjectExistsError), services.objects.receive(key):
            pytest.fail("no row names these bytes")
    assert count(services, uploads) == 3
    with services.store.begin() as connection:
        connection.execute(update(uploads).values(expires_at=uploads.c.expires_at - upload.UNFINISHED_SECONDS))
    sweep.uploads_ended(services)
    assert count(services, uploads) == 0


def test_old_jobs_go_with_all_that_is_theirs_and_stay_counted(
    services: Services, add_job: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, live = add_job(), add_job()
    _, key = add_file(services, old)
    with services.store.begin() as connection:
        event.append(connection, old, None, time.time(), "succeeded")
        spent = {"created_at": 100.0, "gone_at": 3700.0, "usd_per_hour": 2.5, "cause": "lost"}
        points = [{"job": old, "name": "loss", "step": n, "attempt": 1, "at": 0.0, "value": 1.0} for n in range(7)]
        connection.execute(insert(measurements).values(points))
        row = {"job": old, "requested_at": 0.0, "deadline": 0.0, "starts": 0, "step": 0, "n": 1, "name": "m"}
        connection.execute(insert(attempts).values(**row, **spent, state="gone"))
        ended = {"state": "succeeded", "ended_at": time.time() - 31 * DAY}
        connection.execute(update(jobs).where(jobs.c.id == old).values(**ended))
    before = figures(services)
    monkeypatch.setattr(sweep, "_MEASUREMENTS_AT_ONCE", 3)
    sweep.jobs_old(services)
    assert count(services, measurements) == 0
    with services.store.begin() as connection:
        assert connection.execute(select(jobs.c.id)).scalars().all() == [live]
        assert event.after(connection, old, 0, 10) == []
    assert not there(services, key)
    after = figures(services)
    for name, value in (
        ('events_total{kind="created"}', 2), ('machine_seconds_total{cause="lost"}', 3600),
        ('machine_usd_total{cause="lost"}', 2.5),
    ):  # fmt: skip
        assert after[f"market_training_{name}"] == before[f"market_training_{name}"] == value


def test_a_machine_that_no_attempt_names_is_ended_and_others_are_left(
    services: Services, add_job: Callable[..., str]
) -> None:
    job = add_job()
    row = {"job": job, "requested_at": 0.0, "deadline": 0.0, "starts": 0, "step": 0}
    old, live, nobody = (services.machines.name(one, 1) for one in (job, add_job(), add_job()))
    others = ["other-plane-1", f"mi-notebook-{job.lower()}-1", f"{live}x"]
    with services.store.begin() as connection:
        connection.execute(insert(attempts).values(**row, n=1, name=old, state="gone"))
        connection.execute(insert(attempts).values(**row, n=2, name=live, state="running"))
    launcher = services.machines.launcher("process")
    for name in (old, live, nobody, *others):
        launcher.launch(name, Offer("process", 0.0), PodSpec({}, 60.0, 60.0))
    sweep.machines_stray(services)
    end = time.monotonic() + 60
    while len(launcher.mine()) > 4 and time.monotonic() < end:
        time.sleep(0.01)
    assert {one.name for one in launcher.mine()} == {live, *others}
    assert launcher.look(Handle(nobody)).presence is Presence.EXITED
    with services.store.begin() as connection:
        assert "orphan" in [one.kind for one in event.after(connection, job, 0, 50)]


def test_remains_of_machines_go_an_hour_after_the_end(
    services: Services, add_job: Callable[..., str], tmp_path: Path
) -> None:
    job, now = add_job(), time.time()
    row = {"job": job, "requested_at": 0.0, "deadline": 0.0, "starts": 0, "step": 0, "state": "gone"}
    with services.store.begin() as connection:
        connection.execute(insert(attempts).values(**row, n=1, name="mi-old-1", gone_at=now - 3700))
        connection.execute(insert(attempts).values(**row, n=2, name="mi-new-2", gone_at=now - 60))
    for name in ("mi-old-1", "mi-new-2"):
        (tmp_path / "machines" / name / "work").mkdir(parents=True)
    sweep.machines_remains(services)
    assert [path.name for path in (tmp_path / "machines").iterdir()] == ["mi-new-2"]


@pytest.fixture
def dstack() -> Iterator[Dstack]:
    with serving() as server:
        yield server


@pytest.fixture
def rented(services: Services, dstack: Dstack) -> Services:
    """The services with a dstack server, and jobs that are deleted an hour after their end."""
    launcher = DstackLauncher(dstack.url, "token", "main", "r/i@sha256:0", 40, "mi")
    machines = Machines("mi", {"dstack": launcher, **services.machines.launchers})
    return dataclasses.replace(services, machines=machines, config=Config(keep_days=1 / 24))


def add_run(services: Services, dstack: Dstack, job: str, **values: object) -> str:
    """A run of the job that ended two hours ago; its name."""
    name, now = services.machines.name(job, 1), time.time()
    services.machines.launcher("dstack").launch(name, Offer("L4", 0.6), PodSpec({}, 60.0, 60.0))
    dstack.runs[name] |= {"status": "done", "cost": 0.4}
    row = {
        "job": job, "n": 1, "name": name, "launcher": "dstack", "state": "gone", "starts": 1, "step": 0,
        "requested_at": now - 9000, "created_at": now - 9000, "gone_at": now - 7200, "deadline": now,
        "usd_per_hour": 0.6,
    }  # fmt: skip
    with services.store.begin() as connection:
        connection.execute(insert(attempts).values(**{**row, **values}))
        ended = {"state": "succeeded", "ended_at": now - 7200}
        connection.execute(update(jobs).where(jobs.c.id == job).values(**ended))
        budget.charge(connection, OWNER, job, 1, 0.3, now)
    return name


def test_the_record_of_a_run_stays_until_the_bill_is_settled(
    rented: Services, dstack: Dstack, add_job: Callable[..., str]
) -> None:
    job = add_job()
    name = add_run(rented, dstack, job)
    for sweeps in range(2):
        sweep.machines_remains(rented)
        sweep.jobs_old(rented)
        assert (name in dstack.runs, count(rented, jobs)) == ((True, 1), (False, 0))[sweeps]
        settle.bills(rented)
    with rented.store.read() as connection:
        assert budget.spent(connection, job) == pytest.approx(0.4)


def test_a_machine_that_was_never_confirmed_has_no_bill_to_wait_for(
    rented: Services, dstack: Dstack, add_job: Callable[..., str]
) -> None:
    add_run(rented, dstack, add_job(), created_at=None)
    sweep.machines_remains(rented)
    assert dstack.runs == {}


def test_a_platform_that_is_away_for_one_machine_delays_no_other(
    rented: Services, dstack: Dstack, add_job: Callable[..., str]
) -> None:
    created = [add_job() for _ in range(3)]
    now = time.time()
    names = [add_run(rented, dstack, job, settled_at=now, gone_at=now - 7200 + n) for n, job in enumerate(created)]
    for name in names:
        dstack.runs[name]["status"] = "running"
    dstack.refuse = [None, 503]  # the list is answered, the first machine's stop is not
    sweep.machines_stray(rented)
    assert sorted(run["status"] for run in dstack.runs.values()) == ["running", "terminated", "terminated"]
    sweep.machines_stray(rented)
    with rented.store.begin() as connection:
        kinds = [[one.kind for one in event.after(connection, job, 0, 50)] for job in created]
    assert [one.count("orphan") for one in kinds] == [1, 1, 1], "also of the machine whose end took two tries"
    dstack.refuse = [503]
    sweep.machines_remains(rented)
    assert len(dstack.runs) == 1
    dstack.refuse = [503]
    sweep.jobs_old(rented)
    assert (count(rented, jobs), count(rented, attempts)) == (1, 1), "the rows stay until the platform answers"
    sweep.jobs_old(rented)
    assert (dstack.runs, count(rented, jobs)) == ({}, 0)


def test_a_duty_that_fails_is_written_down_and_done_again(store: Database) -> None:
    done: list[str] = []

    def fail() -> None:
        done.append("failed")
        raise OSError("read-only")

    hands = Duties(store, {"good": Duty(60, lambda: done.append("good")), "bad": Duty(60, fail)}, "w", Clock())
    hands.declare()
    hands.declare()
    while hands.turn():
        pass
    assert sorted(done) == ["failed", "good"]
    with store.begin() as connection:
        rows = {row["name"]: row for row in connection.execute(select(duties)).mappings()}
    assert rows["bad"]["last_error"] == "OSError: read-only"
    assert rows["good"]["last_error"] == ""
    assert rows["good"]["last_ok_at"]
    assert rows["bad"]["due_at"] > time.time()


def test_one_bad_row_stops_no_other_row(
    services: Services, add_job: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that could not be deleted stopped the deletion of all files behind it, at each sweep."""
    job = add_job()
    files = [add_file(services, job, lives=-60.0) for _ in range(5)]
    bad, delete = files[0][1], services.objects.delete

    def refuses(key: str) -> None:
        if key == bad:
            raise ObjectsAwayError("Operation not permitted")
        delete(key)

    monkeypatch.setattr(services.objects, "delete", refuses)
    with pytest.raises(UndoneError, match="1 rows, the first: ObjectsAwayError"):
        sweep.uploads_ended(services)
    assert [there(services, key) for _, key in files] == [True, False, False, False, False]
    assert count(services, uploads) == 1


def test_rows_end_early_when_nothing_goes() -> None:
    asked = []

    def fails(row: int) -> None:
        asked.append(row)
        raise ObjectsAwayError

    with pytest.raises(UndoneError):
        each(range(1000), fails)
    assert len(asked) == MOST_FAILURES


@pytest.mark.parametrize("seconds", [60.0, 3600.0, DAY])
def test_a_duty_is_done_once_in_its_period(store: Database, seconds: float) -> None:
    done: list[float] = []
    hands = Duties(store, {"rare": Duty(seconds, lambda: done.append(seconds))}, "w", Clock())
    hands.declare()
    assert [hands.turn() for _ in range(3)] == [True, False, False]
    assert done == [seconds]


def test_a_worker_leaves_duties_of_others_and_takes_up_a_duty_that_was_given_up(store: Database) -> None:
    done: list[str] = []

    def hands(name: str) -> Duties:
        made = Duties(store, {name: Duty(60, lambda: done.append(name))}, "w", Clock())
        made.declare()
        return made

    newer, older = hands("published"), hands("swept")
    assert [older.turn(), older.turn(), newer.turn(), newer.turn()] == [True, False, True, False]
    with store.begin() as connection:
        connection.execute(update(duties).values(due_at=None))
    assert hands("published").turn()
    assert done == ["swept", "published", "published"]


def test_every_duty_runs_on_an_empty_store(services: Services) -> None:
    for duty in (sweep.duties(services) | sweep.reaper(services)).values():
        duty.work()
