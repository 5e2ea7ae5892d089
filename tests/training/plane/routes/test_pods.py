"""A machine that sends again and again what its token allows: the store, the disk and the answers stay bounded."""

import hashlib
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select

from benchmarks.training.planes import Answer, PlaneProcess, ask
from tests.eventually import eventually
from training.plane import event, token
from training.plane.database import Database
from training.plane.reports import MOST_NAMES, MOST_RESULT_BYTES
from training.plane.schema import events, uploads
from training.plane.token import MOST_DOWNLOADS


@dataclass
class Machine:
    """A machine that runs and does nothing; the test speaks with a token of the machine's attempt."""

    plane: PlaneProcess
    store: Database
    job: str
    token: str

    def post(self, path: str, body: Any = None) -> Answer:
        content = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        return ask("POST", f"{self.plane.url}/api/training{path}", content, headers)

    def declare(self, name: str, content: bytes, kind: str = "artifact", step: int = 0) -> Answer:
        sha256 = hashlib.sha256(content).hexdigest()
        declared = {"kind": kind, "name": name, "sha256": sha256, "bytes": len(content), "step": step}
        return self.post(f"/jobs/{self.job}/uploads", declared)

    def upload(self, name: str, content: bytes, kind: str = "artifact", step: int = 0) -> dict:
        """A file, complete."""
        made = self.declare(name, content, kind, step).json
        assert ask("PUT", made["url"], content, made["headers"]).status == 200
        answer = self.post(f"/jobs/{self.job}/uploads/{made['id']}/complete")
        assert answer.status == 200, answer.content
        return made

    def result(self, **measures: Any) -> Answer:
        return self.post(f"/jobs/{self.job}/result", {"measures": measures, "artifacts": []})

    def kinds(self) -> list[str]:
        """The kinds of the job's events."""
        return [one["kind"] for one in self.plane.ask("GET", f"/jobs/{self.job}/events").json["events"]]

    def held(self) -> int:
        """The bytes of the attempt's files, by the store."""
        with self.store.read() as connection:
            return connection.execute(select(func.sum(uploads.c.bytes)).where(uploads.c.job == self.job)).scalar_one()


@contextmanager
def running(plane: PlaneProcess) -> Iterator[Machine]:
    job = plane.job("wait")
    plane.wait(f"/jobs/{job}", "running")
    store = Database(plane.store_url)
    try:
        with store.begin() as connection:
            secret = token.issue(connection, token.JOB, "desk", 0.0, 4e9, job=job, attempt=1)
        yield Machine(plane, store, job, secret)
    finally:
        plane.ask("POST", f"/jobs/{job}/cancel")
        store.close()


@pytest.fixture
def machine(plane: PlaneProcess) -> Iterator[Machine]:
    with running(plane) as made:
        yield made


def error_of(answer: Answer) -> tuple[int, str, str, Any]:
    """Status and reason, and field and limit of the first error."""
    first = answer.json.get("errors", [{}])[0]
    return answer.status, answer.json["reason"], first.get("field", ""), first.get("limit")


def test_an_attempt_has_one_result(machine: Machine) -> None:
    for _ in range(3):  # the answer of the first one may have been lost
        assert machine.result(loss=0.5, note="fine").status == 200
    for other in ({"loss": 0.4, "note": "fine"}, {"loss": 0.5}):
        assert error_of(machine.result(**other))[:2] == (409, "CONFLICT")
    assert machine.kinds().count("result") == 1
    assert machine.plane.ask("GET", f"/jobs/{machine.job}").json["result"]["measures"] == {"loss": 0.5, "note": "fine"}
    assert machine.declare("late.bin", b"late").status == 409


def test_a_result_is_small(machine: Machine) -> None:
    assert error_of(machine.result(note="x" * 201)) == (422, "INVALID_REQUEST", "measures.note", 200)
    many = {f"m{number}": "\N{GRINNING FACE}" * 200 for number in range(200)}
    refusal = (413, "REQUEST_TOO_LARGE", "result", MOST_RESULT_BYTES)
    assert error_of(machine.result(**many)) == refusal
    assert machine.kinds().count("result") == 0


def test_one_look_at_the_events_reads_a_bounded_number_of_bytes(machine: Machine) -> None:
    """Events of an older plane may be large: 69 results of 1.9 MB were one answer of 125 MiB."""
    row = {"job": machine.job, "attempt": 1, "at": 0.0, "kind": "result", "data": {"note": "x" * 100_000}}
    with machine.store.begin() as connection:
        connection.execute(insert(events), [row] * 20)
    path, seen, sizes, cursor = f"/jobs/{machine.job}/events", 0, [], 0
    while True:
        answer = machine.plane.ask("GET", f"{path}?after={cursor}")
        found = answer.json["events"]
        if not found:
            break
        cursor = found[-1]["seq"]
        seen += sum(one["kind"] == "result" for one in found)
        sizes.append(len(answer.content))
    assert seen == 20
    assert max(sizes) < event.MOST_BYTES + 2 * 100_000
    machine.plane.ask("POST", f"/jobs/{machine.job}/cancel")
    followed = [kind for kind, _ in machine.plane.client().follow(machine.job)]
    assert followed.count("result") == 20
    assert "cancelled" in followed


def test_a_log_replaces_the_log_before(machine: Machine) -> None:
    for content in (b"a" * 1000, b"b" * 1000, b"c" * 700):
        assert machine.post(f"/jobs/{machine.job}/log", content).status == 200
    assert machine.held() == 700
    with machine.store.read() as connection:
        mine = (uploads.c.job == machine.job, uploads.c.complete_at.is_not(None))
        assert connection.execute(select(uploads.c.bytes).where(*mine)).scalars().all() == [700]
    objects = machine.plane.folder / "plane" / "objects" / "uploads"
    if objects.exists():
        assert not [one for one in objects.iterdir() if one.stat().st_size == 1000]


def test_a_log_of_any_size_cannot_be_declared(machine: Machine) -> None:
    """The owner's look at the log reads all of it into memory."""
    assert error_of(machine.declare("run.log", b"abc", "log"))[:3] == (422, "INVALID_REQUEST", "kind")


def test_an_artifact_that_is_declared_again_is_replaced(machine: Machine) -> None:
    first = machine.upload("model.bin", b"first")
    second = machine.declare("model.bin", b"the second").json
    assert machine.held() == len(b"the second")
    assert ask("PUT", first["url"], b"first", first["headers"]).status in {409, 412}  # one name, one object
    assert machine.post(f"/jobs/{machine.job}/uploads/{first['id']}/complete").status == 409
    assert ask("PUT", second["url"], b"the second", second["headers"]).status == 200
    assert machine.post(f"/jobs/{machine.job}/uploads/{second['id']}/complete").status == 200
    [shown] = machine.plane.ask("GET", f"/jobs/{machine.job}/artifacts").json["artifacts"]
    assert shown["id"] == second["id"]
    assert machine.plane.ask("GET", f"/artifacts/{second['id']}").content == b"the second"


def test_a_job_keeps_two_checkpoints(machine: Machine) -> None:
    def keep(step: int, content: bytes) -> Answer:
        made = machine.upload("state", content, "checkpoint", step)
        return machine.post(f"/jobs/{machine.job}/checkpoints", {"step": step, "files": {"state": made["id"]}})

    for step in (1, 2, 3, 4):
        assert keep(step, bytes(100 * step)).status == 201
    shown = machine.plane.ask("GET", f"/jobs/{machine.job}/checkpoints").json["checkpoints"]
    assert [one["step"] for one in shown] == [4, 3]
    assert machine.held() == 700
    assert keep(4, bytes(50)).status == 201  # once more, as a training that is told to stop does
    assert machine.held() == 350
    assert machine.kinds().count("checkpoint") == 4
    artifact = machine.upload("model.bin", b"model")["id"]
    sent = {"step": 9, "files": {"model.bin": artifact}}
    assert machine.post(f"/jobs/{machine.job}/checkpoints", sent).status == 409


def test_measurements_have_a_bounded_number_of_names(machine: Machine) -> None:
    def report(*names: str) -> Answer:
        points = [{"name": name, "value": 1.0, "step": 1} for name in names]
        return machine.post(f"/jobs/{machine.job}/metrics", {"metrics": points})

    known = [f"m{number}" for number in range(MOST_NAMES)]
    assert report(*known[1:]).status == report(known[0], known[1]).status == 200
    assert error_of(report("one more")) == (409, "LIMIT_REACHED", "metrics", MOST_NAMES)
    assert report(*known).status == 200
    assert len(machine.plane.ask("GET", f"/jobs/{machine.job}/measurements").json["series"]) == MOST_NAMES


def test_download_tokens_of_an_attempt_are_counted(machine: Machine) -> None:
    assert [machine.post("/tokens").status for _ in range(MOST_DOWNLOADS)] == [200] * MOST_DOWNLOADS
    assert error_of(machine.post("/tokens")) == (409, "LIMIT_REACHED", "tokens", MOST_DOWNLOADS)


def test_the_files_of_an_attempt_have_a_bounded_number_of_bytes(tmp_path: Path) -> None:
    few = "from training.plane import upload\nupload.MOST_FILES, upload.MOST_ARTIFACTS = 4, 2"
    with PlaneProcess(tmp_path, first=few, MAX_ATTEMPT_BYTES=1000) as plane, running(plane) as machine:
        assert machine.declare("a", bytes(600)).status == 201
        assert error_of(machine.declare("b", bytes(500))) == (413, "REQUEST_TOO_LARGE", "bytes", 1000)
        assert machine.declare("a", bytes(300)).status == 201  # its first declaration is free again
        assert machine.declare("b", bytes(500)).status == 201
        assert error_of(machine.declare("c", b"")) == (409, "LIMIT_REACHED", "uploads", 2)
        assert machine.declare("c", b"", "checkpoint").status == 201
        refused = machine.declare("d", b"", "checkpoint")
        assert (*error_of(refused), refused.headers["Retry-After"]) == (429, "OVERLOADED", "uploads", 4, "600")
        assert machine.declare("b", bytes(400)).status == 201  # checkpoints take no place of the result's


def test_the_requests_of_a_machine_have_a_rate(tmp_path: Path) -> None:
    rate = "from training.plane import rates\nrates.MACHINE = rates.Allowance(0.001, 5.0, 0.0)"
    with PlaneProcess(tmp_path, first=rate) as plane, running(plane) as machine:
        answers = [machine.post(f"/jobs/{machine.job}/metrics") for _ in range(6)]
        assert answers[0].status == 200
        assert error_of(answers[-1])[:2] == (429, "OVERLOADED")
        assert int(answers[-1].headers["Retry-After"]) >= 1
        assert plane.ask("GET", f"/jobs/{machine.job}").status == 200


def test_one_request_at_a_time_writes_an_object(tmp_path: Path) -> None:
    """Each of them would have all of the bytes in a file of its own until the first one is complete."""
    with PlaneProcess(tmp_path) as plane, running(plane) as machine:
        made = machine.declare("model.bin", b"0123456789").json
        host, port = plane.url.removeprefix("http://").split(":")
        path = made["url"].removeprefix(plane.url)
        folder = plane.folder / "plane" / "objects" / "uploads"
        with socket.create_connection((host, int(port)), timeout=60) as first:
            first.sendall(f"PUT {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n01234".encode())
            eventually(lambda: len(list(folder.glob(".*"))) if folder.exists() else 0, lambda count: count == 1)
            assert error_of(ask("PUT", made["url"], b"0123456789"))[:2] == (429, "OVERLOADED")
            first.sendall(b"56789")
            assert first.recv(64).startswith(b"HTTP/1.1 200 ")
        assert ask("PUT", made["url"], b"0123456789").status == 409
