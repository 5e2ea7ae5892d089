"""Many requests of one owner: those of others, /health and the reports of machines do not wait for these."""

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert

from benchmarks.training.planes import Answer, PlaneProcess, ask, texts
from tests.eventually import SECONDS, eventually
from training.plane.database import Database
from training.plane.schema import measurements
from training.plane.slow import MOST, PIECES

PARTS = {"MULTIPART_BYTES": 1000, "PART_BYTES": 1000}
INCOMPLETE = "the upload is not complete: a part is missing or another one"
STOPPED = """
import os
from training.plane import folder
def stopped(*_):
    open(os.environ["GATE"]).close()
"""
COMPLETION = f"{STOPPED}\nfolder.FolderObjects.complete_parts = stopped"
SCRAPE = f"""{STOPPED}
from training.plane import metrics
made = metrics.exposition
metrics.exposition = lambda *given: stopped() or made(*given)
"""
LISTING = f"""{STOPPED}
from training.plane import jobs
listed = jobs.listed
jobs.listed = lambda connection, owner, *given: (owner == "head" and stopped()) or listed(connection, owner, *given)
"""
DISK = f"{STOPPED}\nfolder.os.fsync = stopped"


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Lets the plane's stopped() go on. A FIFO is opened for reading once another side has opened it for writing."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    monkeypatch.setenv("GATE", str(path))
    with contextlib.ExitStack() as stack:

        def open_gate() -> None:
            stack.callback(os.close, os.open(path, os.O_RDWR))

        yield open_gate


@contextlib.contextmanager
def in_threads(calls: list[Callable[[], Answer]]) -> Iterator[list[Answer]]:
    """The calls, each in a thread, which end with the block; the answers."""
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda call=call: answers.append(call())) for call in calls]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        for thread in threads:
            thread.join(SECONDS)


def declare(plane: PlaneProcess, content: bytes, owner: str = "desk") -> dict:
    declared = {
        "name": "x", "kind": "texts", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    answer = plane.ask("POST", "/datasets", declared, owner=owner)
    assert answer.status == 201, answer.content
    return answer.json


def complete(plane: PlaneProcess, dataset: str, etags: list[str]) -> Answer:
    return plane.ask("POST", f"/datasets/{dataset}/complete", {"etags": etags})


def others_are_answered(plane: PlaneProcess) -> None:
    """Requests of every kind, among them a report of a machine, here without a valid token."""
    assert ask("GET", f"{plane.url}/health").status == 200
    assert plane.ask("GET", "/jobs").status == 200
    assert plane.ask("GET", "/jobs", owner="other").status == 200
    assert plane.ask("POST", f"/jobs/{'0' * 26}/metrics", {}).status == 401
    assert plane.ask("DELETE", f"/datasets/{declare(plane, b'x', 'other')['id']}", owner="other").status == 204


def test_completions_of_one_owner_take_a_share_of_the_threads(tmp_path: Path, gate: Callable[[], None]) -> None:
    with PlaneProcess(tmp_path / "plane", first=COMPLETION, **PARTS) as plane:
        first, *more = [declare(plane, texts())["id"] for _ in range(MOST + 1)]
        calls = [lambda made=made: complete(plane, made, ["x"] * 3) for made in [first, first, *more]]
        with in_threads(calls) as answers:
            eventually(lambda: len(answers), lambda count: count == 2)
            again, refused = sorted(answers, key=lambda answer: answer.status)
            assert (again.status, again.json["detail"].split(";")[0]) == (409, f"another request works on {first}")
            assert (refused.status, refused.json["reason"], refused.headers["Retry-After"]) == (429, "OVERLOADED", "5")
            others_are_answered(plane)
            gate()
        assert {(answer.status, answer.json["detail"]) for answer in answers[2:]} == {(409, INCOMPLETE)}
        assert complete(plane, first, ["x"] * 3).json["detail"] == INCOMPLETE


def test_lists_of_one_owner_take_a_share_of_the_threads(tmp_path: Path, gate: Callable[[], None]) -> None:
    with PlaneProcess(tmp_path / "plane", first=LISTING) as plane:
        with in_threads([lambda: plane.ask("GET", "/jobs", owner="head") for _ in range(MOST + 5)]) as answers:
            eventually(lambda: len(answers), lambda count: count == 5)
            refusals = {(one.status, one.json["reason"], one.headers["Retry-After"]) for one in answers}
            assert refusals == {(429, "OVERLOADED", "5")}
            others_are_answered(plane)
            gate()
        assert [one.status for one in answers[5:]] == [200] * MOST


def test_a_slow_disk_under_uploads_delays_uploads_alone(tmp_path: Path, gate: Callable[[], None]) -> None:
    with PlaneProcess(tmp_path / "plane", first=DISK) as plane:
        content = texts()
        signed = [declare(plane, content)["upload"] for _ in range(45)]
        with in_threads([lambda one=one: ask("PUT", one["url"], content) for one in signed]) as answers:
            files = tmp_path / "plane" / "plane" / "objects" / "datasets"
            eventually(lambda: len(list(files.glob(".*"))) if files.exists() else 0, lambda made: made >= PIECES)
            assert plane.ask("GET", "/jobs").status == 200
            assert plane.ask("POST", f"/jobs/{'0' * 26}/metrics", {}).status == 401
            gate()
        assert [answer.status for answer in answers] == [200] * 45


def test_a_completion_whose_answer_was_lost_is_repeated(tmp_path: Path) -> None:
    lost = """
from training.plane import dataset
uploaded = dataset.uploaded
def dies(*_):
    dataset.uploaded = uploaded
    raise RuntimeError("as if the worker died after the object was made")
dataset.uploaded = dies
"""
    with PlaneProcess(tmp_path, first=lost, **PARTS) as plane:
        content = texts()
        made = declare(plane, content)
        etags = []
        for number in range(1, made["parts"]["count"] + 1):
            signed = plane.ask("POST", f"/datasets/{made['id']}/parts/{number}").json
            part = content[1000 * (number - 1) : 1000 * number]
            etags.append(ask("PUT", signed["url"], part).headers["ETag"])
        assert len(etags) > 2
        assert complete(plane, made["id"], etags).status == 500
        assert complete(plane, made["id"], etags).status == 200
        assert ask("PUT", signed["url"], part).status == 409
        assert plane.wait(f"/datasets/{made['id']}", "ready", "refused")["state"] == "ready"
        token = plane.ask("POST", f"/datasets/{made['id']}/tokens").json["url"]
        got = ask("GET", token, None, {"Range": "bytes=500-2500"})
        assert (got.status, got.content) == (206, content[500:2501])
        assert plane.ask("DELETE", f"/datasets/{made['id']}").status == 204
        assert [path for path in (tmp_path / "plane" / "objects").rglob("*") if path.is_file()] == []


def test_scrapes_of_strangers_wait_without_threads(tmp_path: Path, gate: Callable[[], None]) -> None:
    with PlaneProcess(tmp_path / "plane", first=SCRAPE) as plane:
        with in_threads([lambda: ask("GET", f"{plane.url}/metrics") for _ in range(45)]) as answers:
            others_are_answered(plane)
            gate()
        assert [answer.status for answer in answers] == [200] * 45


def test_of_many_measurements_some_are_shown(tmp_path: Path) -> None:
    with PlaneProcess(tmp_path) as plane:
        job = plane.job("succeed")
        plane.finished(job)
        store = Database(f"sqlite:///{tmp_path}/plane/store.db")
        few = [("few", step) for step in range(1999)]
        many = [("many", step) for step in range(4000, 8001)]
        broad = [(f"name{n:06d}", 0) for n in range(99_000)]
        rows = [
            {"job": job, "name": name, "step": step, "attempt": 1, "at": 0.0, "value": 0.5}
            for name, step in few + many + broad
        ]
        with store.begin() as connection:
            connection.execute(insert(measurements), rows)
        store.close()
        series = plane.ask("GET", f"/jobs/{job}/measurements").json["series"]
        assert series["few"] == [[step, 0.5] for _, step in few]
        assert series["many"] == [[step, 0.5] for step in range(4000, 8001, 3)]
        assert sum(map(len, series.values())) == 100_000
