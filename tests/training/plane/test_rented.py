"""A real plane that rents pods, which are processes with the real run.sh, under the faults of a platform."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from benchmarks.training.planes import PlaneProcess
from tests.runpod.platform import KEY, Platform, Pod, RefusalError, platform

CREATE = "POST /v2/pods"
# In the place of Python: the recipe's name says what the training does. The first word is run.sh's own check.
TRAINING = """#!/usr/bin/env bash
if [[ $1 == --version ]]; then echo "Python 3.11"; exit; fi
name=$(grep -o '"name": *"[^"]*"' start.json | head -1 | cut -d '"' -f 4)
case "$name" in
  # A recipe reports, and the plane answers that the job was cancelled.
  sleep) for _ in {1..300}; do
    sleep 0.2
    curl -sS -f -K .auth -H 'Content-Type: application/json' -d '{"step": 1, "metrics": []}' \
      "$PLANE_URL/api/training/jobs/$JOB_ID/metrics" | grep -q '"stop": *true' && exit 76
  done ;;
  fail) exit 3 ;;
esac
curl -sS -f -K .auth -H 'Content-Type: application/json' -d '{"measures": {"loss": 0.5}, "artifacts": []}' \
  "$PLANE_URL/api/training/jobs/$JOB_ID/result"
"""
# A list of pods serves for 5 s, and a pod is looked at every 2 s: every test would wait for as long, several times.
QUICK_LOOKS = """
from training.plane import reconciler, step
from training.plane.launchers.runpod import RunPodLauncher
RunPodLauncher.__init__.__kwdefaults__["list_seconds"] = 0.25
reconciler.POLL_SECONDS = step.POLL_SECONDS = 0.25
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, PlaneProcess]]:
    folder = tmp_path_factory.mktemp("rented")
    python = folder / "python"
    python.write_text(TRAINING)
    python.chmod(0o755)
    with platform(folder / "pods") as made:
        made.environment = {"PYTHON": str(python)}
        settings = {"LAUNCHERS": "runpod", "RUNPOD_KEY": KEY, "RUNPOD_API": made.url, "IMAGE": f"r/i@sha256:{'0' * 64}"}
        with PlaneProcess(folder / "plane", first=QUICK_LOOKS, **settings) as plane:
            yield made, plane


@pytest.fixture
def runpod(shared: tuple[Platform, PlaneProcess]) -> Platform:
    """The platform without a fault, and without a pod of an earlier test."""
    made, _ = shared
    assert made.live() == []
    made.calls.clear()
    made.past.clear()
    made.refuse.clear()
    made.lose_answers_to.clear()
    made.unlisted_seconds, made.price_factor = 0.0, 1.0
    return made


@pytest.fixture
def plane(shared: tuple[Platform, PlaneProcess]) -> PlaneProcess:
    return shared[1]


def until(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def kinds(plane: PlaneProcess, job: str) -> list[str]:
    return [one["kind"] for one in plane.ask("GET", f"/jobs/{job}/events").json["events"]]


def test_a_job_runs_on_a_pod_that_ends_itself(plane: PlaneProcess, runpod: Platform) -> None:
    job = plane.job("succeed")
    done = plane.finished(job)
    assert done["state"] == "succeeded", (done, kinds(plane, job))
    assert runpod.live() == []
    [pod] = runpod.past
    [tried] = done["attempts"]
    assert pod.fields["name"] == tried["name"]
    assert (tried["launcher"], tried["offer"], tried["usd_per_hour"]) == ("runpod", "NVIDIA RTX A5000", 0.27)
    assert "ended with exit code 0" in plane.ask("GET", f"/jobs/{job}/logs").content.decode()


def test_a_lost_create_answer_makes_one_pod_which_is_found_by_name(plane: PlaneProcess, runpod: Platform) -> None:
    runpod.lose_answers_to = {CREATE}
    job = plane.job("succeed")
    assert plane.finished(job)["state"] == "succeeded"
    assert "answer_lost" in kinds(plane, job)
    assert runpod.calls.count(CREATE) == len(runpod.past) == 1


def test_a_pod_that_the_list_lacks_for_seconds_is_not_made_twice(plane: PlaneProcess, runpod: Platform) -> None:
    runpod.unlisted_seconds = 3.0
    runpod.lose_answers_to = {CREATE}
    assert plane.finished(plane.job("succeed"))["state"] == "succeeded"
    assert runpod.calls.count(CREATE) == 1


def test_no_capacity_takes_the_next_offer(plane: PlaneProcess, runpod: Platform) -> None:
    runpod.refuse[CREATE] = [RefusalError(400, "there are no instances currently available")]
    done = plane.finished(plane.job("succeed"))
    assert (done["state"], done["attempts"][0]["offer"]) == ("succeeded", "NVIDIA L4")


def test_a_rate_limit_is_waited_for(plane: PlaneProcess, runpod: Platform) -> None:
    runpod.refuse[CREATE] = [RefusalError(429, "slower", {"Retry-After": "1"})]
    job = plane.job("succeed")
    assert plane.finished(job)["state"] == "succeeded"
    assert "launch_failed" in kinds(plane, job)


def test_no_balance_fails_the_job_with_the_reason(plane: PlaneProcess, runpod: Platform) -> None:
    runpod.refuse[CREATE] = [RefusalError(402, "insufficient balance")]
    done = plane.finished(plane.job("succeed"))
    assert done["state"] == "failed"
    assert "insufficient balance" in done["reason"]
    assert runpod.live() == []


def test_a_pod_that_costs_more_than_agreed_is_ended_at_once(plane: PlaneProcess, runpod: Platform) -> None:
    runpod.price_factor = 1.5
    job = plane.job("sleep")
    tried = until(lambda: [one for one in jobs_attempts(plane, job) if one["state"] == "gone"])[0]
    assert (tried["cause"], runpod.live()) == ("price", [])
    plane.ask("POST", f"/jobs/{job}/cancel")
    assert plane.finished(job)["state"] == "cancelled"


def test_a_restarted_container_is_ended_and_the_job_goes_on_elsewhere(plane: PlaneProcess, runpod: Platform) -> None:
    job = plane.job("sleep")
    first = until(lambda: [one for one in jobs_attempts(plane, job) if one["state"] == "running"])
    [pod] = runpod.live()
    pod.process.kill()
    until(lambda: pod.starts > 1)
    until(lambda: jobs_attempts(plane, job)[0]["state"] == "gone")
    assert jobs_attempts(plane, job)[0]["cause"] == "crash_loop"
    assert pod.gone_at is not None
    assert first[0]["n"] == 1
    plane.ask("POST", f"/jobs/{job}/cancel")
    assert plane.finished(job)["state"] == "cancelled"
    assert runpod.live() == []


def test_a_dead_host_is_replaced_and_its_pod_terminated(plane: PlaneProcess, runpod: Platform) -> None:
    job = plane.job("sleep")
    until(lambda: [one for one in jobs_attempts(plane, job) if one["state"] == "running"])
    [pod] = runpod.live()
    runpod.kill_host(pod)
    until(lambda: len(jobs_attempts(plane, job)) == 2)
    assert jobs_attempts(plane, job)[0]["cause"] == "lost"
    until(lambda: pod.gone_at is not None)
    plane.ask("POST", f"/jobs/{job}/cancel")
    assert plane.finished(job)["state"] == "cancelled"
    assert runpod.live() == []


def test_a_pod_that_somebody_deleted_is_replaced(plane: PlaneProcess, runpod: Platform) -> None:
    job = plane.job("sleep")
    until(lambda: [one for one in jobs_attempts(plane, job) if one["state"] == "running"])
    [pod] = runpod.live()
    runpod._end(pod)
    until(lambda: len(jobs_attempts(plane, job)) == 2)
    plane.ask("POST", f"/jobs/{job}/cancel")
    assert plane.finished(job)["state"] == "cancelled"


def test_a_failing_recipe_costs_a_pod_and_no_more(plane: PlaneProcess, runpod: Platform) -> None:
    done = plane.finished(plane.job("fail", max_attempts=1))
    assert (done["state"], done["attempts"][0]["exit_code"]) == ("failed", 3)
    assert runpod.live() == []


@pytest.mark.usefixtures("one_day")
def test_the_worst_case_is_reserved_while_a_pod_lives_and_charged_by_the_second(
    plane: PlaneProcess, runpod: Platform
) -> None:
    before = plane.ask("GET", "/budget").json
    begun = time.time()
    job = plane.job("sleep", max_seconds=3600)
    until(lambda: [one for one in jobs_attempts(plane, job) if one["state"] == "running"])
    held = plane.ask("GET", "/budget").json
    assert held["reserved_usd"] == pytest.approx(0.27 * (900 + 3600) / 3600, abs=1e-3)
    assert held["left_usd"] == pytest.approx(before["left_usd"] - held["reserved_usd"], abs=1e-3)
    [pod] = runpod.live()
    assert pod.fields["env"]["DEADLINE_SECONDS"] == "3600"
    plane.ask("POST", f"/jobs/{job}/cancel")
    plane.finished(job)
    after = plane.ask("GET", "/budget").json
    assert after["reserved_usd"] == 0.0
    assert 0 < after["charged_usd"] - before["charged_usd"] <= 0.27 * (time.time() - begun) / 3600 + 1e-6


@pytest.mark.usefixtures("one_day")
def test_a_job_that_the_budget_does_not_cover_is_refused_and_a_larger_budget_helps(
    plane: PlaneProcess, runpod: Platform
) -> None:
    dear = b"{kind: sentiment, name: succeed, max_seconds: 1000000}"
    dataset = plane.dataset()
    refused = plane.ask("POST", f"/jobs?dataset={dataset}", dear)
    assert (refused.status, refused.json["reason"]) == (422, "PREFLIGHT_FAILED")
    assert refused.json["errors"][0]["field"] == "budget"
    dry = plane.ask("POST", f"/estimate?dataset={dataset}", dear).json
    assert (dry["valid"], dry["offers"][0]["offer"]) == (False, "NVIDIA RTX A5000")
    assert plane.ask("PUT", "/budgets/desk", {"usd_per_month": 1000}).status == 403
    assert plane.ask("PUT", "/budgets/desk", {"usd_per_month": 1000}, owner="treasurer").json["limit_usd"] == 1000.0
    assert plane.ask("POST", f"/estimate?dataset={dataset}", dear).json["valid"] is True
    mine = plane.ask("GET", "/budget").json
    assert plane.ask("GET", "/budgets").json == {"budgets": [mine]}
    assert plane.ask("GET", "/budgets", owner="treasurer").status == 403
    idle = {**mine, "owner": "head", "limit_usd": 50.0, "reserved_usd": 0.0, "charged_usd": 0.0, "left_usd": 50.0}
    assert plane.ask("GET", "/budgets", owner="head").json["budgets"] == [mine, idle]
    plane.ask("PUT", "/budgets/desk", {"usd_per_month": None}, owner="treasurer")
    other = plane.ask("PUT", "/budgets/spiffe:%2F%2Fdesk%2F42", {"usd_per_month": 5}, owner="treasurer")
    assert (other.json["owner"], other.json["limit_usd"]) == ("spiffe://desk/42", 5.0)
    assert runpod.calls.count(CREATE) == 0


def test_max_usd_shortens_the_life_of_a_pod_and_pays_for_none_when_it_is_spent(
    plane: PlaneProcess, runpod: Platform
) -> None:
    job = plane.job("sleep", max_usd=0.0060, max_seconds=3600)
    until(lambda: [one for one in jobs_attempts(plane, job) if one["state"] == "running"])
    [pod] = runpod.live()
    assert int(pod.fields["env"]["DEADLINE_SECONDS"]) in {79, 80}
    answer = until(lambda: answered(pod))
    assert 40 < answer["paid_seconds"] < 80, "the machine has cost since its request"
    plane.ask("POST", f"/jobs/{job}/cancel")
    plane.finished(job)
    assert "max_usd" in plane.finished(plane.job("sleep", max_usd=0.001))["reason"]


def answered(pod: Pod) -> Any:
    """The plane's answer to the pod's start; None before the pod has written all of the answer."""
    file = pod.log.parent / str(pod.starts - 1) / "start.json"
    with suppress(FileNotFoundError, json.JSONDecodeError):
        return json.loads(file.read_text())
    return None


def jobs_attempts(plane: PlaneProcess, job: str) -> list[dict[str, Any]]:
    return list(plane.ask("GET", f"/jobs/{job}").json["attempts"])
