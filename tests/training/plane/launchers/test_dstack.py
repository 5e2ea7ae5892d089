"""Runs of a dstack server: every request is checked against our copy of its shapes, and against dstack's own document.

dstack's document is read where DSTACK_OPENAPI names the file; `app.openapi()` of the package's server writes it.
"""

import base64
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.http_thread import running
from tests.runpod.contract import Document
from tests.runtime.remote.answers import UNKNOWN_FORMS, answering
from training.plane.launcher import (
    AnswerLostError,
    Handle,
    LauncherAwayError,
    LaunchError,
    LaunchImpossibleError,
    Offer,
    OfferRefusedError,
    PodSpec,
    Presence,
    Wanted,
)
from training.plane.launchers.dstack import DstackLauncher

NAME = "mi-abcd-01m8ha6mdy93g3j7mxwpk51rn5-1"
OURS = Document(Path(__file__).with_name("dstack.json"))
THEIRS = [Document(Path(os.environ["DSTACK_OPENAPI"]))] if "DSTACK_OPENAPI" in os.environ else []
L4 = Offer("L4", 0.6)
POD = PodSpec({"JOB_TOKEN": "t"}, 3600.0, 3000.0, Wanted(memory_gb=16))
AT = "2026-11-28T12:00:00+00:00"


class Dstack(ThreadingHTTPServer):
    """Runs by name, and the server's replies about the runs."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.runs: dict[str, dict[str, Any]] = {}
        self.problems: list[str] = []
        self.refuse: list[int | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        for document in (OURS, *THEIRS):
            self.problems += [f"{path}: {one}" for one in document.request("POST", path, body)]
        verb = path.rsplit("/", 2)[-2:]
        if verb == ["runs", "list"]:
            active = [run for run in self.runs.values() if run["status"] not in {"done", "failed", "terminated"}]
            return 200, active
        if verb == ["runs", "get_plan"]:
            offers = [self.offer("L4", 0.6), self.offer("L4", 0.55), self.offer("H100", 2.5, "not_available")]
            return 200, {"job_plans": [{"offers": [*offers, self.offer("A10", 0.4)]}]}
        if verb == ["logs", "poll"]:
            lines = [base64.b64encode(line).decode() for line in (b"two\n", b"one\n")]
            return 200, {"logs": [{"timestamp": AT, "log_source": "stdout", "message": line} for line in lines]}
        return getattr(self, verb[1])(body)

    def offer(self, gpu: str, price: float, availability: str = "available") -> dict[str, Any]:
        instance = {"name": "i", "resources": {"gpus": [{"name": gpu, "memory_mib": 24576}]}}
        return {"instance": instance, "price": price, "availability": availability}

    def apply(self, body: Any) -> tuple[int, Any]:
        spec = body["plan"]["run_spec"]
        if spec["run_name"] in self.runs:
            return 400, {"detail": [{"code": "error", "msg": "Cannot override active run. Stop the run first."}]}
        run = {"id": "0f", "status": "submitted", "submitted_at": AT, "run_spec": spec, "cost": 0.0, "jobs": []}
        self.runs[spec["run_name"]] = run
        return 200, run

    def get(self, body: Any) -> tuple[int, Any]:
        if body["run_name"] not in self.runs:
            return 400, {"detail": [{"code": "resource_not_exists", "msg": "Run not found"}]}
        return 200, self.runs[body["run_name"]]

    def stop(self, body: Any) -> tuple[int, Any]:
        for name in body["runs_names"]:
            self.runs[name]["status"] = "terminated"
        return 200, None

    def delete(self, body: Any) -> tuple[int, Any]:
        for name in body["runs_names"]:
            del self.runs[name]
        return 200, None


class _Handler(BaseHTTPRequestHandler):
    server: Dstack

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        refused = self.server.refuse.pop(0) if self.server.refuse else None
        status, found = (refused, {"detail": "no"}) if refused else self.server.answer(self.path, body)
        if refused == 0:
            self.close_connection = True
            return
        assert self.headers["Authorization"] == "Bearer token"
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Dstack]:
    """A server whose requests have all had the shapes of the document."""
    with running(Dstack()) as made:
        yield made
        assert made.problems == []


@pytest.fixture
def server() -> Iterator[Dstack]:
    with serving() as made:
        yield made


@pytest.fixture
def launcher(server: Dstack) -> DstackLauncher:
    return DstackLauncher(server.url, "token", "main", "r/i@sha256:0", 40, "mi-abcd")


def test_offers_are_the_best_price_of_each_gpu_that_is_free(launcher: DstackLauncher) -> None:
    assert launcher.offers(Wanted(memory_gb=16)) == [Offer("A10", 0.4), Offer("L4", 0.55)]
    assert launcher.offers(Wanted(gpus=("L4", "A10"), max_usd_per_hour=0.5)) == [Offer("A10", 0.4)]


def test_a_run_is_submitted_once_with_its_caps_seen_and_stopped(launcher: DstackLauncher, server: Dstack) -> None:
    for _ in range(2):
        launcher.launch(NAME, L4, POD)
    task = server.runs[NAME]["run_spec"]["configuration"]
    assert (task["max_duration"], task["max_price"], task["retry"]) == (3000, 0.6, False)
    assert task["resources"]["gpu"] == {"count": 1, "name": ["L4"], "memory": "16GB.."}
    machine = Handle(NAME)
    assert launcher.look(machine).presence is Presence.PROVISIONING
    submission = {"id": "ab", "status": "running", "job_provisioning_data": {"price": 0.61}}
    server.runs[NAME] |= {"status": "running", "jobs": [{"job_submissions": [submission]}], "cost": 0.2}
    seen = launcher.look(machine)
    assert (seen.presence, seen.usd_per_hour) == (Presence.RUNNING, 0.61)
    server.runs[NAME]["status"] = "a status of a later release"
    assert launcher.look(machine).presence is Presence.RUNNING
    assert launcher.mine() == [machine]
    assert launcher.logs(machine, 7) == b"ne\ntwo\n"
    assert launcher.bill(machine, 0.0, 1.0) == 0.2
    for now in (False, True):
        launcher.stop(machine, now=now)
    assert launcher.look(machine).presence is Presence.EXITED
    assert launcher.mine() == []
    launcher.forget(machine)
    launcher.forget(machine)
    assert launcher.look(machine).presence is Presence.ABSENT


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, OfferRefusedError), (403, LaunchImpossibleError), (422, LaunchImpossibleError), (503, AnswerLostError)],
)
def test_refusals_of_a_launch(launcher: DstackLauncher, server: Dstack, status: int, kind: type[LaunchError]) -> None:
    server.refuse = [status]
    with pytest.raises(LaunchError) as error:
        launcher.launch(NAME, L4, POD)
    assert type(error.value) is kind


def test_a_server_that_is_away_is_no_absent_machine(launcher: DstackLauncher, server: Dstack) -> None:
    for verb in (lambda: launcher.look(Handle(NAME)), launcher.mine, lambda: launcher.offers(Wanted())):
        server.refuse = [503]
        with pytest.raises(LauncherAwayError):
            verb()


@pytest.mark.parametrize("body", UNKNOWN_FORMS.values(), ids=UNKNOWN_FORMS)
def test_a_server_that_answers_in_another_form_is_away(body: bytes) -> None:
    machine = Handle(NAME)
    with answering(body) as server:
        launcher = DstackLauncher(server.url, "t", "main", "image", 40, "mi-abcd")
        for ask in (
            lambda: launcher.offers(Wanted()),
            lambda: launcher.look(machine),
            lambda: launcher.stop(machine, now=True),
        ):
            with pytest.raises(LauncherAwayError):
                ask()


@pytest.mark.parametrize("amount", ["1e999", '"nan"', "-1000", "[]"])
def test_an_amount_that_is_no_money_never_reaches_the_accounts(amount: str) -> None:
    run = f'{{"status": "running", "cost": {amount}, "jobs": [{{"job_submissions": [{{"job_provisioning_data": '
    run += f'{{"price": {amount}}}}}]}}]}}'
    with answering(run.encode()) as server:
        launcher = DstackLauncher(server.url, "t", "main", "image", 40, "mi-abcd")
        for ask in (lambda: launcher.look(Handle(NAME)), lambda: launcher.bill(Handle(NAME), 0.0, 1.0)):
            with pytest.raises(LauncherAwayError, match="another form"):
                ask()
