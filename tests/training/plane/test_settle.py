"""Bills take the place of estimates, once, an hour after the machine was seen gone."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import insert, select, update

from runtime.remote.runpod import RunPod
from tests.runpod.platform import KEY, Platform, RefusalError, platform
from training.plane import budget, event, metrics, settle
from training.plane.clock import Clock
from training.plane.config import Config
from training.plane.database import Database
from training.plane.launcher import Handle, Offer, PodSpec
from training.plane.launchers.runpod import Container, RunPodLauncher
from training.plane.machines import Machines
from training.plane.schema import attempts, events
from training.plane.services import Services


@pytest.fixture
def runpod() -> Iterator[Platform]:
    with platform() as made:
        yield made


@pytest.fixture
def services(store: Database, runpod: Platform, tmp_path: Path) -> Services:
    launcher = RunPodLauncher(RunPod(KEY, api=runpod.url), "mi-x", Container("i@sha256:0", 40), list_seconds=0.0)
    none = SimpleNamespace()
    machines = Machines("mi-x", {"runpod": launcher})
    return Services(Config(folder=tmp_path), store, none, none, none, machines, Clock())


@pytest.fixture
def gone(services: Services, runpod: Platform, add_job: Callable[..., str]) -> str:
    """A job whose pod ran for half an hour and is gone for two."""
    job, now = add_job(), time.time()
    made = services.machines.launcher("runpod").launch("mi-x-1", Offer("NVIDIA L4", 0.39), PodSpec({}, 60.0, 60.0))
    pod = runpod.pods[made.id]
    services.machines.launcher("runpod").stop(Handle("mi-x-1", made.id), now=True)
    pod.began, pod.gone_at = now - 9000, now - 7200
    row = {
        "job": job, "n": 1, "name": "mi-x-1", "handle": made.id, "launcher": "runpod", "state": "gone", "starts": 1,
        "step": 0, "requested_at": now - 9000, "created_at": now - 9000, "gone_at": now - 7200, "deadline": now,
        "usd_per_hour": 0.5,
    }  # fmt: skip
    with services.store.begin() as connection:
        connection.execute(insert(attempts).values(**row))
        budget.charge(connection, "desk", job, 1, 0.25, now)
    return job


def charged(services: Services, job: str) -> float:
    with services.store.read() as connection:
        return budget.spent(connection, job)


def test_a_bill_takes_the_place_of_the_estimate_once(services: Services, runpod: Platform, gone: str) -> None:
    for _ in range(2):
        settle.bills(services)
    assert charged(services, gone) == pytest.approx(0.195)
    assert runpod.calls.count("GET /v2/billing/pods") == 1
    text = metrics.exposition(services.store, time.time()).decode()
    assert 'market_training_settled_usd_total{basis="agreed"} 0.25' in text
    assert 'market_training_settled_usd_total{basis="billed"} 0.195' in text


def test_an_empty_or_absent_bill_is_asked_for_again(services: Services, runpod: Platform, gone: str) -> None:
    runpod.bill_factor = 0.0
    settle.bills(services)
    runpod.refuse_next = [RefusalError(503)]
    settle.bills(services)
    assert charged(services, gone) == 0.25
    runpod.bill_factor = 1.0
    settle.bills(services)
    assert charged(services, gone) == pytest.approx(0.195)


def test_a_machine_that_is_gone_for_less_than_an_hour_has_no_whole_bill(
    services: Services, runpod: Platform, gone: str
) -> None:
    with services.store.begin() as connection:
        connection.execute(update(attempts).values(gone_at=time.time() - 600))
    settle.bills(services)
    assert "GET /v2/billing/pods" not in runpod.calls
    with services.store.read() as connection:
        assert connection.execute(select(attempts.c.settled_at)).scalar() is None


@pytest.mark.parametrize("confirmed", [True, False])
def test_the_bill_of_a_machine_that_the_reaper_has_ended_is_the_attempts(
    services: Services, runpod: Platform, gone: str, confirmed: bool
) -> None:
    launcher, now = services.machines.launcher("runpod"), time.time()
    second = launcher.launch("mi-x-1", Offer("NVIDIA L4", 0.39), PodSpec({}, 60.0, 60.0))
    launcher.stop(Handle("mi-x-1", second.id), now=True)
    pod = runpod.past[-1]
    pod.began, pod.gone_at = now - 9000, now - 8000
    with services.store.begin() as connection:
        if not confirmed:
            connection.execute(update(attempts).values(created_at=None, handle=""))
        event.append(connection, gone, 1, now - 60, "orphan", machine="mi-x-1", id=second.id)
    settle.bills(services)
    assert "GET /v2/billing/pods" not in runpod.calls, "the bill of the second machine is not complete"
    with services.store.begin() as connection:
        connection.execute(update(events).where(events.c.kind == "orphan").values(at=now - 3700))
    settle.bills(services)
    alone = 0.39 * 1000 / 3600
    assert charged(services, gone) == pytest.approx(0.195 + alone if confirmed else alone)
