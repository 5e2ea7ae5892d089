"""Jobs over HTTP on both databases and both object stores, with real machines that run the quick pod."""

import asyncio
import hashlib
import http.client
import json
import select
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks.training.planes import PlaneProcess, ask, texts
from training.plane.errors import OverloadedError
from training.plane.routes.jobs import _Watchers

BOMB = b"kind: sentiment\na: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


@pytest.fixture(scope="module")
def dataset(plane: PlaneProcess) -> str:
    """A dataset that no test of this file changes."""
    return plane.dataset()


def refused(plane: PlaneProcess, recipe: bytes, dataset: str) -> dict:
    answer = plane.ask("POST", f"/jobs?dataset={dataset}", recipe)
    assert answer.status in {413, 422}, answer.content
    assert answer.headers["Content-Type"] == "application/problem+json"
    return answer.json


def test_a_job_runs_and_its_artifact_is_fetched(plane: PlaneProcess, tmp_path: Path) -> None:
    job = plane.job("succeed")
    done = plane.finished(job)
    assert (done["state"], done["progress"], done["result"]["measures"]) == ("succeeded", 1.0, {"loss": 0.5})
    client = plane.client()
    [artifact] = client.json("GET", f"/jobs/{job}/artifacts")["artifacts"]
    file = client.download(artifact, tmp_path)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == artifact["sha256"]
    assert client.exchange("GET", f"/artifacts/{artifact['id']}", None, {}) == file.read_bytes()
    assert client.json("GET", f"/jobs/{job}/measurements") == {"series": {"loss": [[1, 0.5]]}}
    kinds = [kind for kind, _ in client.follow(job) if kind != "progress"]
    assert kinds[0] == "created"
    assert kinds[-1] == "succeeded"
    assert kinds.count("started") == kinds.count("gone") == 1
    assert plane.ask("GET", f"/artifacts/{artifact['id']}", owner="other").status == 404
    assert plane.ask("GET", f"/jobs/{job}", owner="other").status == 404


def test_events_have_a_cursor(plane: PlaneProcess) -> None:
    job = plane.job("succeed")
    plane.finished(job)
    every = plane.ask("GET", f"/jobs/{job}/events").json["events"]
    assert [one["seq"] for one in every] == sorted({one["seq"] for one in every})
    rest = plane.ask("GET", f"/jobs/{job}/events?after={every[2]['seq']}").json["events"]
    assert rest == every[3:]
    streamed = [data["seq"] for kind, data in plane.client().follow(job, every[2]["seq"]) if kind != "progress"]
    assert streamed == [one["seq"] for one in rest]


def test_one_key_makes_one_job(plane: PlaneProcess) -> None:
    dataset = plane.dataset()
    recipe = json.dumps({"kind": "sentiment", "name": "succeed"}).encode()
    made = []

    def create() -> None:
        made.append(plane.client().run(recipe, dataset, "once")["id"])

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(made)) == 1
    plane.finished(made[0])
    other = plane.ask("POST", f"/jobs?dataset={dataset}", b"kind: sentiment\n", **{"Idempotency-Key": "once"})
    assert other.status == 409
    wrong = b"{kind: classifier, base: /etc/nothing, labels: [low, high]}"
    dry = plane.ask("POST", f"/jobs?dataset={dataset}&dry_run=true", wrong, **{"Idempotency-Key": "once"})
    assert dry.json["valid"] is False, "a dry run repeats no job"


def test_a_dry_run_makes_nothing(plane: PlaneProcess) -> None:
    dataset = plane.dataset()
    before = [one["id"] for one in plane.client().json("GET", "/jobs")["jobs"]]
    answer = plane.client().run(b"kind: sentiment\n", dataset, dry_run=True)
    assert answer["recipe"]["rank"] == 16
    assert answer["valid"] is True
    assert answer["offers"][0]["usd_most"] == 0.0
    assert [one["id"] for one in plane.client().json("GET", "/jobs")["jobs"]] == before


@pytest.mark.parametrize(
    ("recipe", "field"),
    [
        (b"kind: sentiment\ncolour: red\n", "recipe.colour"),
        (b"kind: sentiment\nepochs: 0\n", "recipe.epochs"),
        (b"kind: sentiment\nsplit: {validation: 0.9}\n", "recipe.split.validation"),
        (b"kind: dragon\n", "recipe"),
        (b"name: x\n", "recipe"),
        (b"- kind\n", "recipe"),
        (b"kind: [\n", "recipe"),
        (b"kind: sentiment\nkind: sentiment\n", "recipe"),
        (BOMB, "recipe"),
        (b"[" * 5000, "recipe"),
        (b"!!python/object/apply:os.system [ls]\n", "recipe"),
        (b"kind: !!bool perhaps\n", "recipe"),
        (b"kind: !!timestamp never\n", "recipe"),
        (b'kind: sentiment\nname: "a\\0b"\n', "recipe.name"),
        (b"kind: sentiment\nclip: .nan\n", "recipe.clip"),
        (b"#" * 70_000, "recipe"),
    ],
)
def test_a_bad_recipe_is_refused_with_its_field(plane: PlaneProcess, dataset: str, recipe: bytes, field: str) -> None:
    found = refused(plane, recipe, dataset)
    assert field in [one["field"] for one in found["errors"]]


def test_limits_stand_in_the_answer(plane: PlaneProcess, dataset: str) -> None:
    [error] = refused(plane, b"kind: sentiment\nepochs: 1000\n", dataset)["errors"]
    assert (error["field"], error["limit"]) == ("recipe.epochs", 100)


def test_credentials_and_scopes(plane: PlaneProcess) -> None:
    assert plane.ask("GET", "/jobs", owner="reader").status == 403
    none = plane.ask("GET", "/jobs", Authorization="")
    assert (none.status, none.headers["WWW-Authenticate"]) == (401, "Bearer")
    two = plane.ask("GET", "/jobs", **{"x-api-key": "mi_another_key"})
    assert (two.status, "different credentials" in two.json["detail"]) == (401, True)
    assert plane.ask("GET", "/jobs/01M8HA6MDY93G3J7MXWPK51RN5").status == 404
    assert plane.ask("GET", "/jobs/..").status in {404, 422}
    assert plane.ask("PUT", "/jobs").status == 405


def test_a_huge_body_is_refused(plane: PlaneProcess) -> None:
    """The refusal comes before the body: a body under way would break off the connection."""
    connection = http.client.HTTPConnection(plane.url.removeprefix("http://"), timeout=60)
    connection.putrequest("POST", "/api/training/datasets")
    connection.putheader("Content-Length", str(3 << 20))
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["reason"]) == (413, "REQUEST_TOO_LARGE")
    connection.close()


def test_a_body_of_many_small_values_is_refused_before_it_is_parsed(plane: PlaneProcess) -> None:
    """Strangers' bodies are parsed, too: 690,000 objects took the event loop a quarter of a second."""
    body = b'{"z": [' + b"{}," * 16_400 + b"{}]}"
    answer = plane.ask("POST", "/datasets", body, Authorization="", **{"Content-Type": "application/json"})
    assert (answer.status, answer.json["reason"]) == (413, "REQUEST_TOO_LARGE")
    assert "values of the body: at most 16384, got " in answer.json["detail"]
    few = b'{"z": [' + b"{}," * 8_000 + b"{}]}"
    assert plane.ask("POST", "/datasets", few, Authorization="", **{"Content-Type": "application/json"}).status == 401


def test_cancel_ends_a_running_job(plane: PlaneProcess) -> None:
    job = plane.job("sleep 60")
    plane.wait(f"/jobs/{job}", "running")
    assert plane.ask("POST", f"/jobs/{job}/cancel", owner="other").status == 404
    for _ in range(2):
        assert plane.ask("POST", f"/jobs/{job}/cancel").status == 200
    done = plane.finished(job)
    assert done["state"] == "cancelled"
    assert done["attempts"][0]["state"] == "gone"
    assert plane.ask("POST", f"/jobs/{job}/cancel").json["state"] == "cancelled"


def test_cancel_before_the_start(plane: PlaneProcess) -> None:
    job = plane.job("succeed", plane.dataset())
    plane.ask("POST", f"/jobs/{job}/cancel")
    assert plane.finished(job)["state"] in {"cancelled", "succeeded"}


def test_a_failing_recipe_is_tried_twice(plane: PlaneProcess) -> None:
    done = plane.finished(plane.job("fail 3"))
    assert (done["state"], done["reason"]) == ("failed", "the recipe failed: exit code 3")
    assert [one["exit_code"] for one in done["attempts"]] == [3, 3]


def test_refused_data_are_not_tried_again(plane: PlaneProcess) -> None:
    done = plane.finished(plane.job("fail 65"))
    assert (done["state"], len(done["attempts"])) == ("failed", 1)


def test_a_second_attempt_resumes_from_the_checkpoint(plane: PlaneProcess) -> None:
    job = plane.job("checkpoint")
    done = plane.finished(job)
    assert (done["state"], len(done["attempts"])) == ("succeeded", 2)


def test_a_dead_machine_is_replaced_and_not_counted_against_the_recipe(plane: PlaneProcess) -> None:
    done = plane.finished(plane.job("die", max_attempts=1))
    assert done["state"] == "succeeded"
    assert [one.get("cause", "") for one in done["attempts"]] == ["lost", ""]


def test_a_machine_that_starts_twice_is_ended(plane: PlaneProcess) -> None:
    job = plane.job("twice", max_attempts=1)
    end = time.monotonic() + 60
    while "started_again" not in (kinds := [e["kind"] for e in plane.ask("GET", f"/jobs/{job}/events").json["events"]]):
        assert time.monotonic() < end, kinds
        time.sleep(0.05)
    plane.ask("POST", f"/jobs/{job}/cancel")
    done = plane.finished(job)
    assert done["attempts"][0]["cause"] == "crash_loop"


def test_a_dataset_that_is_refused_refuses_the_job(plane: PlaneProcess, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(b"text,label\n" + b"a,1\n" * 5)
    dataset = plane.client().upload(file, "texts")
    answer = plane.ask("POST", f"/jobs?dataset={dataset}", b"kind: sentiment\n")
    if answer.status == 201:  # the checks were still under way
        assert plane.finished(answer.json["id"])["state"] == "refused"
    else:
        assert answer.status == 409


def test_a_recipe_needs_its_own_kind_of_data(plane: PlaneProcess, dataset: str) -> None:
    found = refused(plane, b"kind: calibration\n", dataset)
    assert found["errors"][0]["field"] == "dataset"


@pytest.mark.parametrize(
    ("recipe", "kind", "most"),
    [
        ({"kind": "sentiment"}, "sentiment", 2),
        ({"kind": "classifier", "base": "a/b", "revision": "1", "labels": ["low", "high"]}, "classifier", 1),
    ],
)
def test_a_recipe_that_cannot_take_the_labels_makes_no_job(
    plane: PlaneProcess, recipe: Any, kind: str, most: int
) -> None:
    """The machine found out, after its start was paid."""
    text, why = json.dumps(recipe).encode(), f"{kind} takes the labels 0 to {most}, and the dataset has {most + 1}"
    good, bad = (plane.dataset(texts().replace(b",2\n", b",%d\n" % label)) for label in (most, most + 1))
    for path in ("/jobs?dry_run=true&", "/estimate?"):
        assert plane.ask("POST", f"{path}dataset={good}", text).json["valid"]
        found = plane.ask("POST", f"{path}dataset={bad}", text).json
        assert not found["valid"]
        assert {"field": "dataset", "passed": False, "text": why} in found["checks"]
    found = refused(plane, text, bad)
    assert [error["field"] for error in found["errors"]] == ["dataset"]


def test_lists_are_paged_and_filtered(plane: PlaneProcess) -> None:
    jobs = [plane.job("succeed") for _ in range(3)]
    for job in jobs:
        plane.finished(job)
    first = plane.ask("GET", "/jobs?limit=2&state=succeeded").json["jobs"]
    assert [one["id"] for one in first] == jobs[:0:-1]
    second = plane.ask("GET", f"/jobs?limit=1&before={first[-1]['id']}").json["jobs"]
    assert [one["id"] for one in second] == jobs[:1]
    assert plane.ask("GET", "/jobs?limit=100000").status == 422
    assert plane.ask("GET", "/jobs?state=lost").json["errors"][0]["field"] == "state"


def test_jobs_that_are_cancelled_at_once_have_a_bounded_number(tmp_path: Path) -> None:
    with PlaneProcess(tmp_path, MAX_KEPT_JOBS_PER_OWNER=2) as plane:
        dataset = plane.dataset()
        for _ in range(2):
            job = plane.job("succeed", dataset)
            plane.ask("POST", f"/jobs/{job}/cancel")
            plane.finished(job)
        refused = plane.ask("POST", f"/jobs?dataset={dataset}", b"kind: sentiment\n")
        assert (refused.status, refused.json["reason"], refused.headers["Retry-After"]) == (429, "OVERLOADED", "3600")
        assert refused.json["detail"] == "at most 2 jobs; final ones go after 30 days"


def test_logs_can_be_read(plane: PlaneProcess) -> None:
    job = plane.job("fail 65")
    plane.finished(job)
    assert plane.ask("GET", f"/jobs/{job}/logs").status == 200


def test_health_metrics_and_page(plane: PlaneProcess) -> None:
    plane.finished(plane.job("succeed"))
    health = ask("GET", f"{plane.url}/health")
    assert (health.status, health.json["status"]) == (200, "healthy")
    text = ask("GET", f"{plane.url}/metrics").content.decode()
    assert 'market_training_jobs{state="succeeded"}' in text
    assert 'market_training_events_total{kind="succeeded"}' in text
    assert "market_training_machines 0.0" in text
    page = ask("GET", f"{plane.url}/")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert ask("GET", f"{plane.url}/openapi.json").json["info"]["title"] == "market-inference training"


def test_numbers_beyond_the_stores_are_refused_or_read_from_the_beginning(plane: PlaneProcess) -> None:
    job = plane.job("succeed")
    plane.finished(job)
    assert plane.ask("GET", f"/jobs/{job}/events?after={'9' * 25}").status == 422
    assert plane.ask("GET", "/jobs?before=%00").status in {200, 422}  # PostgreSQL holds no zero bytes
    every = plane.ask("GET", f"/jobs/{job}/events").json["events"]
    for cursor in ("9" * 25, "9" * 5000, "²"):
        url, headers = f"{plane.url}/api/training/jobs/{job}/events", {"Last-Event-ID": cursor}
        told = ask("GET", url, None, {**headers, "Authorization": f"Bearer {plane.keys['desk']}"})
        assert told.json["events"] == every


def test_a_slow_body_is_given_up_for_strangers_too(tmp_path: Path) -> None:
    """The application reads a body before the credential; without a limit of time strangers hold every connection."""
    first = "from training.plane import guard; guard.BODY_SECONDS = 0.5"
    with PlaneProcess(tmp_path, first=first) as plane:
        host, port = plane.url.removeprefix("http://").split(":")
        head = b"POST /api/training/datasets HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        with socket.create_connection((host, int(port)), timeout=60) as stranger:
            stranger.sendall(head + b"content-length: 1000\r\n\r\n{")
            assert stranger.recv(64).startswith(b"HTTP/1.1 408 ")
        assert ask("GET", f"{plane.url}/health").status == 200


def test_bodies_of_strangers_take_a_bounded_part_of_the_memory(tmp_path: Path) -> None:
    """Small bodies are served while the bytes of all bodies are above the limit."""
    first = "from training.plane import guard; guard.MOST_BODIES_BYTES = 1 << 20"
    with PlaneProcess(tmp_path, first=first) as plane:
        host, port = plane.url.removeprefix("http://").split(":")
        head = b"POST /api/training/datasets HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        with ExitStack() as strangers:
            sockets = [
                strangers.enter_context(socket.create_connection((host, int(port)), timeout=60)) for _ in range(3)
            ]
            for one in sockets:
                one.sendall(head + b"content-length: 600000\r\n\r\n" + b" " * 500_000)
            [refused, *_], _, _ = select.select(sockets, [], [], 60)
            assert refused.recv(64).startswith(b"HTTP/1.1 429 ")
            dataset = plane.dataset()
            assert plane.ask("GET", f"/datasets/{dataset}").status == 200


async def _silent():
    await asyncio.Event().wait()
    yield ""


async def test_one_owner_has_a_quarter_of_the_event_streams() -> None:
    watchers = _Watchers(8)
    held = [watchers.count("desk", _silent()) for _ in range(2)]
    reading = [asyncio.create_task(anext(aiter(stream))) for stream in held]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match="at most 2 open event streams of one owner"):
        watchers.count("desk", _silent())
    watchers.count("other", _silent())
    for task in reading:
        task.cancel()
    await asyncio.wait(reading)
    watchers.count("desk", _silent())
