"""What the sweeps delete and what they keep, on both databases, with real files and machines."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import func, insert, select, update

from tests.training.plane.conftest import OWNER, add_dataset
from training.plane import dataset, event, metrics, sweep, token, upload
from training.plane.clock import Clock
from training.plane.config import Config
from training.plane.database import Database
from training.plane.duty import Duties, Duty
from training.plane.folder import FolderObjects
from training.plane.launcher import Offer, PodSpec, Presence
from training.plane.launchers.process import ProcessLauncher
from training.plane.objects import ObjectMissingError
from training.plane.schema import attempts, checkpoints, datasets, duties, jobs, tokens, uploads
from training.plane.services import Services
from training.plane.signature import Signer
from training.plane.token import Holder
from training.plane.upload import NewUpload, UploadKind

DAY = 86_400.0


@pytest.fixture
def services(store: Database, tmp_path: Path) -> Iterator[Services]:
    (tmp_path / "script.sh").write_text("sleep 60")
    launcher = ProcessLauncher(tmp_path / "machines", tmp_path / "script.sh")
    signer = Signer(store)
    yield Services(
        config=Config(), store=store, objects=FolderObjects(tmp_path / "objects", signer, "http://127.0.0.1:1"),
        signer=signer, authenticator=SimpleNamespace(), launcher=launcher, clock=Clock(),
    )  # fmt: skip
    for name in launcher.mine():
        launcher.stop(name, now=True)


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
        made, key = upload.declare(connection, Holder(OWNER, job, 1), NewUpload(kind, "f", "0" * 64, 3), now, now)
        upload.complete(connection, made, now, now + lives)
    services.objects.put(key, b"abc")
    return made, key


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


def test_the_newest_two_checkpoints_of_a_live_job_stay(services: Services, add_job: Callable[..., str]) -> None:
    job, keys = add_job(), []
    for step in (1, 2, 3):
        file, key = add_file(services, job, UploadKind.CHECKPOINT)
        keys.append(key)
        with services.store.begin() as connection:
            upload.checkpoint(connection, Holder(OWNER, job, 1), step, {"f": file}, time.time())
    sweep.checkpoints_superseded(services)
    assert [there(services, key) for key in keys] == [False, True, True]
    with services.store.begin() as connection:
        connection.execute(update(jobs).values(state="succeeded"))
    sweep.checkpoints_superseded(services)
    assert count(services, checkpoints) == 0


def test_old_jobs_go_with_all_that_is_theirs_and_stay_counted(services: Services, add_job: Callable[..., str]) -> None:
    old, live = add_job(), add_job()
    _, key = add_file(services, old)
    with services.store.begin() as connection:
        event.append(connection, old, None, time.time(), "succeeded")
        spent = {"created_at": 100.0, "gone_at": 3700.0, "usd_per_hour": 2.5, "cause": "lost"}
        row = {"job": old, "requested_at": 0.0, "deadline": 0.0, "starts": 0, "step": 0, "n": 1, "name": "m"}
        connection.execute(insert(attempts).values(**row, **spent, state="gone"))
        ended = {"state": "succeeded", "ended_at": time.time() - 31 * DAY}
        connection.execute(update(jobs).where(jobs.c.id == old).values(**ended))
    before = figures(services)
    sweep.jobs_old(services)
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
    with services.store.begin() as connection:
        connection.execute(insert(attempts).values(**row, n=1, name="mi-old-1", state="gone"))
        connection.execute(insert(attempts).values(**row, n=2, name="mi-live-2", state="running"))
    for name in ("mi-old-1", "mi-live-2", "other-plane-1", "mi-nobody-1"):
        services.launcher.launch(name, Offer("process", 0.0), PodSpec({}))
    sweep.machines_stray(services)
    end = time.monotonic() + 10
    while len(services.launcher.mine()) > 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert sorted(services.launcher.mine()) == ["mi-live-2", "other-plane-1"]
    assert services.launcher.look("mi-nobody-1").presence is Presence.EXITED
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


def test_every_duty_runs_on_an_empty_store(services: Services) -> None:
    for duty in sweep.duties(services).values():
        duty.work()
