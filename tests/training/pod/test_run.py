"""run.sh under bash against a small server: the reports, the exit code, and a single report of the end."""

import contextlib
import hashlib
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.http_thread import running

SCRIPT = Path(__file__).parents[3] / "training" / "pod" / "run.sh"
DATA = b"text,label\n" + b"x" * 50_000
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ")
JOB = "/api/training/jobs/J"


class Plane(http.server.ThreadingHTTPServer):
    """Answers as the plane does; `status` is the download's, `cut` breaks the first downloads off half way.

    An `endless` download is under way until the test is over.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.calls: list[tuple[str, str, bytes]] = []
        self.tokens: set[str] = set()
        self.status = 200
        self.cut = 0
        self.endless = False
        self.over = threading.Event()
        self.start = b"{}"
        self.away = False
        self.before_log: Callable[[], object] = lambda: None
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.download = f"{self.url}/download"
        self.sha256 = hashlib.sha256(DATA).hexdigest()

    def bodies(self, path: str) -> list[bytes]:
        return [body for _, called, body in self.calls if called == path]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Plane

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.calls.append(("POST", self.path, body))
        if self.path.endswith("/log"):
            self.server.before_log()
        if self.path.endswith("/start"):
            self.answer(200, self.server.start)
        elif self.server.away and not self.path.endswith("/tokens"):
            self.answer(503, b"{}")
        elif self.headers["Authorization"] != "Bearer secret-token":
            self.answer(401, b"{}")
        elif self.path.endswith("/tokens"):
            token = f"t{len(self.server.calls)}"
            self.server.tokens.add(token)
            self.answer(200, f"{self.server.download}/{token} {self.server.sha256} {len(DATA)}\n".encode())
        else:
            self.answer(200, b"{}")

    def do_DELETE(self) -> None:
        self.server.calls.append(("DELETE", self.path, b""))
        self.answer(204, b"")

    def do_GET(self) -> None:
        token = self.path.rpartition("/")[2]
        status = self.server.status if token in self.server.tokens else 401
        self.server.tokens.discard(token)
        self.server.calls.append(("GET", self.path, (self.headers["Range"] or "").encode()))
        if status != 200:
            self.answer(status, b"no")
            return
        start = int(self.headers["Range"][6:].split("-")[0]) if self.headers["Range"] else 0
        if self.server.endless:
            self.send_response(200)
            self.send_header("Content-Length", str(1 << 40))
            self.end_headers()
            with contextlib.suppress(OSError):  # the client has left
                while not self.server.over.wait(0.05):
                    self.wfile.write(bytes(1000))
            self.close_connection = True
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(DATA) - start))
        self.send_header("Content-Range", f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
        self.end_headers()
        if self.server.cut:
            self.server.cut -= 1
            self.wfile.write(DATA[start : start + 20_000])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        else:
            self.wfile.write(DATA[start:])

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def serving() -> Iterator[Plane]:
    with running(Plane()) as server:
        try:
            yield server
        finally:
            server.over.set()


@pytest.fixture
def plane() -> Iterator[Plane]:
    with serving() as server:
        yield server


def start(plane: Plane, folder: Path, program: str, **environment: str) -> subprocess.Popen[str]:
    """run.sh with a program in the place of Python and its training."""
    python = folder / "python"
    python.write_text(f"#!/bin/bash\nif [[ $1 == --version ]]; then echo Python 3; exit; fi\n{program}\n")
    python.chmod(0o755)
    # The script waits between tries; a `sleep` of the test makes the waits short.
    quick = folder / "bin"
    quick.mkdir(exist_ok=True)
    (quick / "sleep").write_text(
        '#!/bin/bash\n[[ $1 -le 5 ]] 2>/dev/null && exec /bin/sleep 0.01\nexec /bin/sleep "$1"\n'
    )
    (quick / "sleep").chmod(0o755)
    settings = {"PLANE_URL": plane.url, "JOB_ID": "J", "ATTEMPT": "1", "JOB_TOKEN": "secret-token",
                "DEADLINE_SECONDS": "60", "PYTHON": str(python), "POD_LOG": str(folder / "log"),
                "PATH": f"{quick}:{os.environ['PATH']}", "NO_PROXY": "*"}  # fmt: skip
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(["bash", str(SCRIPT)], env={**settings, **environment}, cwd=folder, stdout=log,
                                stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip


def run(plane: Plane, folder: Path, program: str, **environment: str) -> tuple[int, str]:
    """Exit code and log."""
    child = start(plane, folder, program, **environment)
    try:
        return child.wait(60), (folder / "log").read_text()
    finally:
        end(child)


@dataclass
class Held:
    """A machine under way with a deadline, and its plane."""

    plane: Plane
    folder: Path
    child: subprocess.Popen[str]

    def ended(self) -> tuple[int, str]:
        """Exit code and log."""
        return self.child.wait(60), (self.folder / "log").read_text()


@pytest.fixture(scope="module", autouse=True)
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Held]]:
    """The machines of the last tests of this file, whose deadlines pass while the other tests run."""
    with contextlib.ExitStack() as stack:

        def machine(name: str, program: str, **environment: str) -> Held:
            made, folder = planes[name], tmp_path_factory.mktemp(name)
            child = start(made, folder, program, **environment)
            stack.callback(end, child)
            return Held(made, folder, child)

        planes = {name: stack.enter_context(serving()) for name in ("training", "download", "away", "alone")}
        planes["download"].endless = True
        planes["away"].start = b'{"recipe":{"name":"\\"paid_seconds\\":1"},"checkpoint":null,"paid_seconds":26}'
        planes["away"].away = planes["alone"].away = True
        pod = {"RUNPOD_POD_ID": "p1", "RUNPOD_API_KEY": "k", "RUNPOD_API": planes["away"].url}
        yield {
            "training": machine("training", "exec /bin/sleep 50", DEADLINE_SECONDS="6"),
            "download": machine("download", "exit 0", DEADLINE_SECONDS="6"),
            "away": machine("away", "exec /bin/sleep 100", **pod),
            "alone": machine("alone", "exit 3", DEADLINE_SECONDS="30"),
        }


def end(child: subprocess.Popen[str]) -> None:
    """End every process of a machine."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def test_success_reports_the_end_once_and_stamps_every_line(plane: Plane, tmp_path: Path) -> None:
    code, log = run(plane, tmp_path, 'echo training; [[ "$(head -c 4 data)" == text ]]')
    assert code == 0, log
    assert [json.loads(one) for one in plane.bodies(f"{JOB}/end")] == [{"exit_code": 0, "line": 0, "command": ""}]
    assert all(STAMP.match(line) for line in log.splitlines()), log
    assert "GPU: " in log
    assert "dataset of 50011 bytes is here" in log
    assert b"training" in plane.bodies(f"{JOB}/log")[0]
    assert "secret-token" not in log
    assert not (tmp_path / ".auth").exists()


def test_a_dataset_leaves_the_disk_to_others_and_goes_at_the_end(plane: Plane, tmp_path: Path) -> None:
    """Copies filled the plane's own disk, and stayed: the plane could not write down that the machine had ended."""
    code, log = run(plane, tmp_path, "exit 0", KEEP_FREE_BYTES=str(1 << 60))
    assert code == 123, log
    assert "download: the disk has room for 0 bytes, the dataset has 50011" in log
    assert [method for method, _, _ in plane.calls if method == "GET"] == []
    gone = []
    plane.before_log = lambda: gone.append(not (tmp_path / "data").exists())
    code, log = run(plane, tmp_path, "[[ -s data ]]")
    assert (code, gone) == (0, [True]), log


def test_the_log_that_is_sent_has_the_last_line_whatever_is_said_before(plane: Plane, tmp_path: Path) -> None:
    """The pipe to the process that stamps lines holds 32,000 short lines."""
    code, log = run(plane, tmp_path, "yes | head -n 40000")
    assert code == 0, log[-1000:]
    assert b"ended with exit code 0 after" in plane.bodies(f"{JOB}/log")[0]


def test_failure_keeps_the_exit_code_and_names_line_and_command(plane: Plane, tmp_path: Path) -> None:
    code, log = run(plane, tmp_path, "echo oh no; exit 9")
    [end] = [json.loads(one) for one in plane.bodies(f"{JOB}/end")]
    assert (code, end["exit_code"]) == (9, 9)
    assert end["line"] > 0
    assert end["command"] == 'wait "$!"'
    assert "ERROR in line" in log


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"status": 401}, 122, "not permitted (401)"),
        ({"status": 403}, 122, "not permitted (403)"),
        ({"status": 404}, 122, "nothing there (404)"),
        ({"status": 413}, 122, "larger than the limit (413)"),
        ({"status": 500}, 122, "HTTP 500"),
        ({"download": "http://127.0.0.1:1/download"}, 107, "connection refused"),
        # No name server is asked for this name.
        ({"download": f"http://{'a' * 64}.invalid/download"}, 106, "DNS does not know the host"),
        ({"tls": True}, 135, "TLS failed"),
        ({"sha256": "0" * 64}, 118, "other"),
    ],
)
def test_each_way_for_a_download_to_fail_is_told_apart(
    plane: Plane, tmp_path: Path, change: dict[str, object], code: int, said: str
) -> None:
    if change.pop("tls", False):
        change["download"] = plane.url.replace("http:", "https:") + "/download"
    for name, value in change.items():
        setattr(plane, name, value)
    found, log = run(plane, tmp_path, "exit 0")
    assert found == code, log
    assert said in log
    assert json.loads(plane.bodies(f"{JOB}/end")[0])["exit_code"] == code


def test_a_download_that_breaks_goes_on_with_a_fresh_token(plane: Plane, tmp_path: Path) -> None:
    plane.cut = 2
    code, log = run(plane, tmp_path, "cmp -s data data")
    assert code == 0, log
    assert "the transfer broke off" in log
    ranges = [body.decode() for method, _, body in plane.calls if method == "GET"]
    assert ranges == ["", "bytes=20000-", "bytes=40000-"]
    assert len({path for method, path, _ in plane.calls if method == "GET"}) == 3


def test_a_pod_ends_itself_once(plane: Plane, tmp_path: Path) -> None:
    code, _ = run(plane, tmp_path, "exit 1", RUNPOD_POD_ID="p1", RUNPOD_API_KEY="k", RUNPOD_API=plane.url)
    assert code == 1
    assert [path for method, path, _ in plane.calls if method == "DELETE"] == ["/v2/pods/p1"]


def told_to_stop(plane: Plane, folder: Path, program: str, send: Callable[[int, int], None]) -> int:
    """The exit code after SIGTERM, which `send` sends once the program has made the file `ready`."""
    child = start(plane, folder, program)
    try:
        eventually(lambda: (folder / "ready").exists() or child.poll() is not None)
        assert child.poll() is None, (folder / "log").read_text()
        send(child.pid, signal.SIGTERM)
        return child.wait(60)
    finally:
        end(child)


def test_told_to_stop_it_reports_its_end(plane: Plane, tmp_path: Path) -> None:
    told_to_stop(plane, tmp_path, "touch ready; trap 'exit 76' TERM; while :; do /bin/sleep 0.05; done", os.killpg)
    assert len(plane.bodies(f"{JOB}/end")) == 1


def test_told_alone_it_ends_the_training_too(plane: Plane, tmp_path: Path) -> None:
    """A container's first process alone gets the signal."""
    told = tmp_path / "told"
    plane.before_log = lambda: eventually(told.exists)
    program = "trap 'touch told; exit 76' TERM; touch ready; while :; do /bin/sleep 0.05; done"
    assert told_to_stop(plane, tmp_path, program, os.kill) == 143
    assert told.exists()


def test_a_training_that_ignores_the_signal_does_not_hold_the_machine(plane: Plane, tmp_path: Path) -> None:
    program = "trap '' TERM; touch ready; for _ in {1..100000}; do read -r -t 1 <> <(:); done"
    assert told_to_stop(plane, tmp_path, program, os.kill) == 143
    assert len(plane.bodies(f"{JOB}/end")) == 1


def test_the_deadline_holds_without_the_plane(held: dict[str, Held]) -> None:
    code, log = held["training"].ended()
    assert code == 77, log
    assert "the deadline is reached" in log
    assert json.loads(held["training"].plane.bodies(f"{JOB}/end")[0])["exit_code"] == 77


def test_the_deadline_holds_for_a_download_that_does_not_end(held: dict[str, Held]) -> None:
    code, log = held["download"].ended()
    assert code == 77, log
    assert json.loads(held["download"].plane.bodies(f"{JOB}/end")[0])["exit_code"] == 77


def test_less_time_than_was_asked_for_holds_without_the_plane(held: dict[str, Held]) -> None:
    """The plane's answer to the start has the paid time; then the plane goes away."""
    code, log = held["away"].ended()
    assert code == 77, log
    assert "the end could not be reported" in log
    assert [path for method, path, _ in held["away"].plane.calls if method == "DELETE"] == ["/v2/pods/p1"]


def test_a_training_that_is_done_as_the_deadline_falls_is_done(plane: Plane, tmp_path: Path) -> None:
    code, log = run(plane, tmp_path, "touch .deadline")
    assert code == 0, log


def test_reports_to_a_plane_that_is_away_end_with_the_deadline(held: dict[str, Held]) -> None:
    """Where the deadline is far, each of the two reports is tried for two minutes."""
    code, log = held["alone"].ended()
    assert code == 3, log
    assert "the end could not be reported" in log
