"""Planes and stores that answer other bytes, without an end, or in another form."""

import hashlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request

import pytest
from click.testing import CliRunner

from market_inference.cli.main import main
from market_inference.cli.training import exchange, files
from market_inference.cli.training.plane import Plane, PlaneError
from market_inference.contract import bounded
from tests.http_thread import running
from tests.runtime.remote.answers import Write, answering

BEFORE = b"the file of before"


class Store(ThreadingHTTPServer):
    """A plane and its store: answers POSTs with the address of a file, by default its own, and GETs with the file."""

    daemon_threads = True

    def __init__(self, body: bytes | Callable[[Write], None], headers: dict[str, str], url: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.body, self.headers = body, headers
        self.plane = f"http://127.0.0.1:{self.server_port}"
        self.signed = url or f"{self.plane}/file"


class _Handler(BaseHTTPRequestHandler):
    server: Store

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer(json.dumps({"artifacts": [{"url": self.server.signed}]}).encode(), {})

    def do_GET(self) -> None:
        self._answer(self.server.body, self.server.headers)

    def _answer(self, body: bytes | Callable[[Write], None], headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            if isinstance(body, bytes):
                self.wfile.write(body)
            else:
                body(self.wfile.write)
        except ConnectionError:
            return

    def log_message(self, *args: object) -> None:
        """Nothing."""


@contextmanager
def storing(
    body: bytes | Callable[[Write], None], headers: dict[str, str] | None = None, url: str = ""
) -> Iterator[Store]:
    with running(Store(body, headers or {}, url)) as server:
        yield server


def artifact(content: bytes, **other: Any) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    return {"id": "a", "name": "model.bin", "sha256": digest, "bytes": len(content), **other}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.bin").write_bytes(BEFORE)
    return tmp_path


def unchanged(folder: Path) -> bool:
    return {path.name: path.read_bytes() for path in folder.iterdir()} == {"model.bin": BEFORE}


def endless(write: Write) -> None:
    for _ in range(1 << 16):
        write(b"x" * (1 << 20))


def test_a_file_takes_the_place_of_the_one_before_with_the_mode_of_a_new_file(folder: Path) -> None:
    (folder / "other").touch()
    with storing(b"fresh") as store:
        assert Plane(store.plane, "k").download(artifact(b"fresh"), folder) == folder / "model.bin"
    assert (folder / "model.bin").read_bytes() == b"fresh"
    assert (folder / "model.bin").stat().st_mode == (folder / "other").stat().st_mode
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize(
    ("body", "headers", "declared", "says"),
    [
        (b"other", {}, artifact(b"fresh"), "not the ones"),
        (b"fres", {}, artifact(b"fresh"), "4 of the declared 5 bytes"),
        (b"fres", {"Content-Length": "5"}, artifact(b"fresh"), "4 of the declared 5 bytes"),
        (b"fresher", {}, artifact(b"fresh"), "more than the declared 5 bytes"),
        (endless, {}, artifact(b"fresh"), "more than the declared 5 bytes"),
        (endless, {"Content-Length": str(1 << 40)}, artifact(b"fresh"), "more than the declared 5 bytes"),
        (endless, {}, artifact(b""), "more than the declared 0 bytes"),
        (b"fresh", {}, artifact(b"fresh", bytes=1 << 60), "has room for"),
        (b"fresh", {}, artifact(b"fresh", bytes=-1), "artifact.bytes"),
        (b"fresh", {}, artifact(b"fresh", bytes="5"), "artifact.bytes"),
        (b"fresh", {}, artifact(b"fresh", bytes=None), "artifact.bytes"),
        (b"fresh", {}, artifact(b"fresh", sha256=None), "not the ones"),
        (b"fresh", {}, artifact(b"fresh", name=".."), "artifact.name"),
        (b"fresh", {}, artifact(b"fresh", name=""), "artifact.name"),
        (b"fresh", {}, artifact(b"fresh", name="a\0b"), "artifact.name"),
    ],
)
def test_a_file_that_is_not_the_declared_one_leaves_the_file_of_before(
    folder: Path, body: Any, headers: dict[str, str], declared: dict[str, Any], says: str
) -> None:
    with storing(body, headers) as store, pytest.raises(PlaneError, match=says):
        Plane(store.plane, "k").download(declared, folder)
    assert unchanged(folder)


def test_a_store_that_drips_is_given_up_after_the_whole_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "SECONDS", 0.3)
    monkeypatch.setattr(files, "_LEAST_RATE", 1 << 30)

    def body(write: Write) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            write(b"x")
            time.sleep(0.02)

    with storing(body) as store, pytest.raises(PlaneError, match=r"no answer within 0\.3"):
        files.fetch({"url": store.signed}, store.plane, artifact(b"x" * 100_000), folder)
    assert unchanged(folder)


def test_a_full_disk_is_told_as_such(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = folder / "full"
    made.symlink_to("/dev/full")
    with storing(b"fresh") as store, pytest.raises(PlaneError, match=r"model\.bin: cannot be written: .*space"):
        files._copied(Request(store.signed), made, "model.bin", 5)  # noqa: S310 -- a server on loopback


@pytest.mark.parametrize(
    "address", ["file", "ftp://127.0.0.1:1/", "data:,fresh", "/relative", "http://[::bad", "https:"]
)
def test_an_address_of_another_kind_is_not_read(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, address: str
) -> None:
    local = tmp_path_factory.mktemp("other") / "local"
    local.write_bytes(b"fresh")
    url = local.as_uri() if address == "file" else address
    with storing(b"", url=url) as store, pytest.raises(PlaneError, match="url: must be an https address"):
        Plane(store.plane, "k").download(artifact(b"fresh"), folder)
    with pytest.raises(PlaneError, match="url: must be an https address"):
        files.put({"url": url, "headers": {}}, "http://127.0.0.1:1", local, 0, 5)
    assert unchanged(folder)


def test_a_plane_asked_by_https_gives_no_http_address(folder: Path) -> None:
    with storing(b"fresh") as store, pytest.raises(PlaneError, match="url: must be an https address"):
        files.fetch({"url": store.signed}, "https://plane.example", artifact(b"fresh"), folder)
    assert unchanged(folder)


@pytest.mark.parametrize("answer", [b"", b"null", b"5", b"{}", b'{"artifacts": []}', b'{"artifacts": [5]}', b"text"])
def test_an_answer_without_an_address_is_a_typed_error(folder: Path, answer: bytes) -> None:
    with answering(answer) as server, pytest.raises(PlaneError):
        Plane(server.url, "k").download(artifact(b"fresh"), folder)
    assert unchanged(folder)


@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_without_an_end_is_given_up(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MOST_BYTES", 1 << 20)
    sent = []

    def body(write: Write) -> None:
        while not server.over.is_set():
            write(b" " * (1 << 16))
            sent.append(1 << 16)

    with answering(body, status) as server, pytest.raises(PlaneError):
        Plane(server.url, "k").json("GET", "/jobs")
    assert sum(sent) < 64 << 20  # what the sockets hold


def test_a_plane_that_drips_is_given_up_after_the_whole_time(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = bounded.opened
    monkeypatch.setattr(bounded, "opened", lambda request, **more: opened(request, **{**more, "seconds": 0.3}))

    def body(write: Write) -> None:
        while not server.over.wait(0.02):
            write(b" ")

    with answering(body) as server, pytest.raises(PlaneError, match=r"no answer within 0\.3"):
        Plane(server.url, "k").json("GET", "/jobs")


@pytest.mark.parametrize("answer", [b"text", b"\xff\xfe", b"[" * 200_000])
def test_an_answer_without_json_is_a_typed_error(answer: bytes) -> None:
    with answering(answer) as server:
        plane = Plane(server.url, "k")
        with pytest.raises(PlaneError, match="without JSON"):
            plane.json("GET", "/jobs")
        with pytest.raises(PlaneError, match="without JSON"):
            plane.run(b"", "d")


@pytest.mark.parametrize("detail", [b"[]", b"5", b"text", b'{"errors": [1, 2]}', b'{"errors": 5}', b"[" * 200_000])
def test_a_refusal_of_any_form_keeps_its_status(detail: bytes) -> None:
    with answering(detail, 409) as server, pytest.raises(PlaneError) as refused:
        Plane(server.url, "k").json("GET", "/jobs")
    assert refused.value.status == 409


@pytest.mark.parametrize(
    ("stream", "says"), [(b"data: {\n\n", "without JSON"), (b"data: " + b"x" * (1 << 21), "a line of more than")]
)
def test_an_event_stream_of_another_form_is_a_typed_error(stream: bytes, says: str) -> None:
    with answering(stream) as server, pytest.raises(PlaneError, match=says):
        list(Plane(server.url, "k").follow("job"))


@pytest.mark.parametrize("url", ["http://[::bad", "http://", "plane:8475", "file:///etc/passwd"])
def test_a_plane_without_an_http_address_is_refused(url: str) -> None:
    with pytest.raises(PlaneError, match="not an HTTP address"):
        Plane(url, "k")


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    listed = json.dumps({"artifacts": [{**artifact(b"fresh"), "url": "http://127.0.0.1:1/"}]}).encode()
    with answering(listed) as server:
        environment = {"MARKET_TRAINING_URL": server.url, "MARKET_INFERENCE_API_KEY": "k"}
        command = ["train", "artifacts", "job", "--out", str(tmp_path / "file" / "model")]
        found = CliRunner().invoke(main, command, env=environment)
    assert found.exit_code == 1
    assert found.output.startswith("Error: ")


def test_no_proxy_stands_between_a_plane_on_loopback_and_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy, answering(b"{}") as server:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.delenv("no_proxy", raising=False)
        assert Plane(server.url, "k").json("GET", "/jobs") == {}
