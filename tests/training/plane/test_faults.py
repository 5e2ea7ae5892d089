"""Faults below the plane: the plane itself, the database, the objects, the disk, the clock."""

import contextlib
import errno
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from pydantic import ValidationError
from sqlalchemy import URL, make_url

from benchmarks.training.planes import ROOT, Answer, PlaneProcess, S3Server, ask, texts
from market_inference.contract import keys
from tests.eventually import eventually
from tests.training.plane.conftest import TEMPLATE, create, execute
from training.plane.build import Access, build
from training.plane.clock import JUMP_SECONDS, Clock
from training.plane.config import Config
from training.plane.database import Database
from training.plane.errors import ConfigurationError
from training.plane.folder import FolderObjects, ObjectBusyError, ObjectExistsError
from training.plane.objects import ObjectMissingError, ObjectsFullError
from training.plane.signature import Signer

KEY = "uploads/01M8HA6MDY93G3J7MXWPK51RN5"


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneProcess]:
    """A plane with one machine. Without being woken a job would wait for an hour."""
    patient = "from training.plane import reconciler\nreconciler._FULL_SECONDS = 3600.0"
    with PlaneProcess(tmp_path_factory.mktemp("plane"), MAX_MACHINES=1, first=patient) as plane:
        yield plane


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PlaneProcess, list[str]]]:
    """A plane that was killed again and again, and its three jobs."""
    with PlaneProcess(tmp_path_factory.mktemp("killed")) as plane:
        jobs = [plane.job(name) for name in ("succeed", "sleep 3", "checkpoint")]
        for pause in (0.0, 0.3, 0.7):
            time.sleep(pause)  # where the kill hits is up to the machine
            plane.kill()
            plane.start()
        yield plane, jobs


def test_a_plane_that_was_killed_answers_at_once(killed: tuple[PlaneProcess, list[str]]) -> None:
    """The rows that the plane held stay leased for half a minute, in which the other tests of this file run."""
    plane, jobs = killed
    assert {one["id"] for one in plane.ask("GET", "/jobs").json["jobs"]} == set(jobs)


def test_two_workers_share_the_port_and_a_killed_one_is_replaced(tmp_path: Path) -> None:
    with PlaneProcess(tmp_path, WORKERS=2) as plane:
        parent = psutil.Process(plane.process.pid)
        first = {child.pid for child in parent.children()}
        assert len(first) == 2
        jobs = [plane.job("succeed") for _ in range(3)]
        os.kill(next(iter(first)), signal.SIGKILL)
        assert [plane.finished(job)["state"] for job in jobs] == ["succeeded"] * 3
        eventually(lambda: {child.pid for child in parent.children()} - first, lambda new: len(new) == 1)


def test_a_database_that_is_away_is_a_503_and_then_the_jobs_go_on(postgres: URL, tmp_path: Path) -> None:
    url = create(postgres, TEMPLATE)
    name = make_url(url).database
    with PlaneProcess(tmp_path, DATABASE_URL=url) as plane:
        job = plane.job("sleep 2")
        cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"  # noqa: S608
        execute(postgres, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")

        def cut_off() -> list[Answer]:
            execute(postgres, cut)  # a connection that is being made is listed, and cut, once it is there
            return [plane.ask("GET", "/jobs") for _ in range(3)]

        answers = eventually(cut_off, lambda answers: {answer.status for answer in answers} == {503})
        assert answers[0].json["reason"] == "UNAVAILABLE"
        assert answers[0].headers["Retry-After"] == "5"
        assert ask("GET", f"{plane.url}/health").json["store"]["healthy"] is False
        execute(postgres, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        assert plane.finished(job)["state"] == "succeeded"


def test_objects_that_are_away_are_a_503_and_then_the_checks_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "s3"
    folder.mkdir()
    with S3Server(folder) as server, PlaneProcess(tmp_path / "plane", OBJECTS=server.objects) as plane:
        dataset = plane.dataset()
        server.kill()
        health = ask("GET", f"{plane.url}/health")
        assert (health.status, health.json["objects"]["healthy"], health.json["store"]["healthy"]) == (503, False, True)
        assert plane.ask("DELETE", f"/datasets/{dataset}").status == 503
        server.start()
        assert plane.ask("DELETE", f"/datasets/{dataset}").status == 204
        assert plane.finished(plane.job("succeed"))["state"] == "succeeded"


def test_a_silent_object_store_is_a_503_after_one_question(tmp_path: Path) -> None:
    """/health asked three times for each of three questions, 30 s each."""
    short = "from training.plane.bucket import BucketObjects\nBucketObjects.__init__.__defaults__ = (0.5,)"
    with socket.create_server(("127.0.0.1", 0)) as server:
        silent = f"s3://training?endpoint=http://127.0.0.1:{server.getsockname()[1]}"
        with PlaneProcess(tmp_path, OBJECTS=silent, first=short) as plane:
            health = ask("GET", f"{plane.url}/health")
            assert (health.status, health.json["objects"]["healthy"]) == (503, False)
            server.accept()[0].close()
            server.settimeout(0)
            with pytest.raises(BlockingIOError):
                server.accept()


@pytest.fixture
def objects(tmp_path: Path) -> Iterator[FolderObjects]:
    store = Database(f"sqlite:///{tmp_path}/store.db")
    store.migrate()
    yield FolderObjects(tmp_path / "objects", Signer(store), "http://127.0.0.1:1")
    store.close()


def test_a_full_disk_is_told_and_leaves_nothing_half_written(
    objects: FolderObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ObjectsFullError):
        objects.put(KEY, b"content")
    monkeypatch.undo()
    assert [path for path in (tmp_path / "objects").rglob("*") if path.is_file()] == []
    objects.put(KEY, b"content")
    assert b"".join(objects.read(KEY, 3, 6)) == b"ten"


def test_uploads_leave_the_reserve_of_the_disk(objects: FolderObjects, tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    objects._keep_free = 1 << 60
    with pytest.raises(ObjectsFullError), objects.receive(KEY):
        pytest.fail("an upload began")
    objects._keep_free = free // 2
    with pytest.raises(ObjectsFullError), objects.receive(KEY, size=free):
        pytest.fail("an upload began that the disk has no room for")
    with pytest.raises(ObjectsFullError), objects.receive(KEY) as file:
        file.write(b"content")
        objects._keep_free = file._keep_free = 1 << 60  # another writer took the room
        file.write(b"content")
    assert [path for path in (tmp_path / "objects").rglob("*") if path.is_file()] == []
    objects.put(KEY, b"a log")


def test_on_a_disk_without_room_for_uploads_all_else_goes_on(process: PlaneProcess) -> None:
    dataset = process.dataset()
    with PlaneProcess(process.folder, MIN_FREE_BYTES=1 << 60) as plane:
        made = plane.ask("POST", "/datasets", {"name": "x", "kind": "texts", "bytes": 3, "sha256": "0" * 64}).json
        refused = ask("PUT", made["upload"]["url"], b"abc")
        assert (refused.status, refused.json["reason"]) == (507, "STORAGE_FULL")
        plane.wait(f"/jobs/{(job := plane.job('sleep 250', dataset))}", "running")
        assert plane.ask("POST", f"/jobs/{job}/cancel").status < 300
        assert plane.finished(job)["state"] == "cancelled"
        assert [plane.ask("DELETE", f"/datasets/{one}").status for one in (made["id"], dataset)] == [204, 204]
        assert ask("GET", f"{plane.url}/health").status == 200
        figures = ask("GET", f"{plane.url}/metrics").content.decode()
        assert f'market_training_disk_bytes{{kind="reserve"}} {float(1 << 60)}' in figures
        assert 'market_training_disk_bytes{kind="free"}' in figures


FULL_DISK = """
import os, sys
from sqlalchemy import insert, update
from training.plane.database import Database, StoreFullError
from training.plane.schema import duties

store = Database("sqlite:///store.db")
store.migrate()
with store.begin() as connection:
    connection.execute(insert(duties), [{"name": str(n), "last_error": "x" * 1000} for n in range(1000)])
if sys.argv[1] == "kept":
    store.keep_room()
with open("fill", "wb", buffering=0) as file:
    try:
        while file.write(bytes(1 << 20)):
            pass
    except OSError:
        pass
done = 0
try:
    for n in range(1000):
        with store.begin() as connection:
            connection.execute(update(duties).where(duties.c.name == str(n)).values(last_error="y" * 900))
        done += 1
except StoreFullError:
    pass
os.unlink("fill")
with store.begin() as connection:
    connection.execute(update(duties).values(last_error="z" * 1500))
print(done)
"""


MOUNTS = (
    shutil.which("unshare") is not None
    and subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0
)


@pytest.mark.skipif(not MOUNTS, reason="this system lets nobody mount a small disk")
@pytest.mark.parametrize("room", ["kept", ""])
def test_a_disk_without_any_room_still_takes_changes_of_the_store(tmp_path: Path, room: str) -> None:
    """Nobody could delete a dataset, and no sweep could run, so the disk stayed full."""
    mounted = 'mount -t tmpfs -o size=40m none "$1" && cd "$1" && exec "$2" -c "$3" "$4"'
    command = ["unshare", "-rm", "sh", "-c", mounted, "sh", str(tmp_path), sys.executable, FULL_DISK, room]
    ran = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) == 1000 if room else int(ran.stdout) < 1000


def test_of_two_writers_of_one_object_one_wins(objects: FolderObjects) -> None:
    lost, barrier = [], threading.Barrier(4)

    def write(number: int) -> None:
        barrier.wait(60)
        try:
            objects.put(KEY, f"writer {number}".encode())
        except (ObjectExistsError, ObjectBusyError):
            lost.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    [winner] = {0, 1, 2, 3} - set(lost)
    assert b"".join(objects.read(KEY)) == f"writer {winner}".encode()


@pytest.mark.parametrize("parts", [False, True])
def test_an_object_has_one_writer_at_a_time(objects: FolderObjects, tmp_path: Path, parts: bool) -> None:
    """Each of any number of writers took the room of the object on the disk."""
    upload = objects.begin_parts(KEY) if parts else ""
    with objects.receive(KEY, upload, int(parts)) as first:
        first.write(b"first")
        with pytest.raises(ObjectBusyError), objects.receive(KEY, upload, int(parts)):
            pytest.fail("a second writer")
    if parts:
        objects.complete_parts(KEY, upload, [first.sha256])
    else:
        with pytest.raises(ObjectExistsError), objects.receive(KEY):
            pytest.fail("a write that cannot succeed")
    assert b"".join(objects.read(KEY)) == b"first"
    assert [path.name for path in (tmp_path / "objects").rglob(".*")] == []


def test_a_part_that_comes_while_the_one_before_ends_is_kept(
    objects: FolderObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of the first writer took the file of the second writer away."""
    upload = objects.begin_parts(KEY)
    replace, ending = objects._replace, contextlib.ExitStack()
    written = []

    def replace_slowly(fresh: Path, home: Path, part: int, sha256: str) -> None:
        replace(fresh, home, part, sha256)
        monkeypatch.undo()
        written.append(ending.enter_context(objects.receive(KEY, upload, 1)))

    monkeypatch.setattr(objects, "_replace", replace_slowly)
    with objects.receive(KEY, upload, 1) as first:
        first.write(b"first")
    written[0].write(b"second")
    ending.close()
    objects.complete_parts(KEY, upload, [written[0].sha256])
    assert b"".join(objects.read(KEY)) == b"second"


def test_what_a_killed_writer_has_left_is_written_over(objects: FolderObjects, tmp_path: Path) -> None:
    left = tmp_path / "objects" / KEY.replace(KEY.rpartition("/")[2], f".{KEY.rpartition('/')[2]}.0")
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half of a longer content")
    objects.put(KEY, b"whole")
    assert b"".join(objects.read(KEY)) == b"whole"
    assert not left.exists()


def test_parts_become_the_object_without_being_read(
    objects: FolderObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(part: int, content: bytes) -> str:
        with objects.receive(KEY, upload, part) as file:
            file.write(content)
        return f'"{file.sha256}"'

    upload = objects.begin_parts(KEY)
    replaced, second = write(1, b"other"), write(2, b"cdef")
    first = write(1, b"ab")
    with pytest.raises(ObjectMissingError):
        objects.complete_parts(KEY, upload, [replaced, second])
    with pytest.raises(ObjectMissingError):
        objects.complete_parts(KEY, upload, [first, second, first])
    last = write(3, b"g")
    with pytest.raises(ObjectMissingError):
        objects.complete_parts(KEY, upload, [first, second])
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("a part was read"))
    objects.complete_parts(KEY, upload, [first, second, last])
    monkeypatch.undo()
    assert objects.size(KEY) == 7
    for start in range(8):
        for end in (*range(start, 8), None):
            assert b"".join(objects.read(KEY, start, end)) == b"abcdefg"[start:end]
    for late in (lambda: write(1, b"late"), lambda: objects.complete_parts(KEY, upload, [first, second, last])):
        with pytest.raises(ObjectMissingError):
            late()
    objects.abort_parts(KEY, upload)
    objects.delete(KEY)
    assert [path for path in (tmp_path / "objects").rglob("*") if path.is_file()] == []


def test_bytes_for_an_object_that_exists_take_no_room(objects: FolderObjects) -> None:
    objects.put(KEY, b"once")
    with pytest.raises(ObjectExistsError), objects.receive(KEY):
        pytest.fail("the bytes would be written beside the object")
    objects.empty(KEY)
    assert objects.size(KEY) == 0
    with pytest.raises(ObjectExistsError), objects.receive(KEY):
        pytest.fail("an address of an upload is valid after the file was replaced")


def test_an_upload_in_parts_is_given_up_while_a_part_comes(objects: FolderObjects, tmp_path: Path) -> None:
    upload = objects.begin_parts(KEY)
    with pytest.raises(ObjectMissingError), objects.receive(KEY, upload, 1) as file:
        file.write(b"begun")
        objects.abort_parts(KEY, upload)
    objects.abort_parts(KEY, upload)
    with pytest.raises(ObjectMissingError):
        objects.size(KEY)
    assert list((tmp_path / "objects" / "uploads").iterdir()) == []


@pytest.mark.parametrize("end", ["delete", "empty", "abort_parts", "complete_parts"])
def test_an_upload_under_way_keeps_no_byte_beyond_the_end_of_its_object(
    objects: FolderObjects, tmp_path: Path, end: str
) -> None:
    """The bytes stayed until the upload's end, which the sender chose, and counted for nobody."""
    upload = objects.begin_parts(KEY) if end.endswith("parts") else ""
    if upload:
        with objects.receive(KEY, upload, 1) as whole:
            whole.write(b"part")
    with pytest.raises(ObjectMissingError), objects.receive(KEY, upload, int(bool(upload))) as file:
        file.write(b"under way")
        file._file.flush()
        more = {"abort_parts": (upload,), "complete_parts": (upload, [whole.sha256])} if upload else {}
        getattr(objects, end)(KEY, *more.get(end, ()))
        assert os.fstat(file._file.fileno()).st_size == 0
        assert [path.name for path in (tmp_path / "objects").rglob(".*")] == []
        file.write(b"a piece more")
    assert [path.stat().st_size for path in (tmp_path / "objects").rglob("*") if path.is_file()] == {
        "empty": [0], "complete_parts": [len(b"part")],
    }.get(end, [])  # fmt: skip


@pytest.mark.parametrize(("end", "left"), [("delete", []), ("empty", [0])])
def test_a_download_under_way_keeps_no_byte_of_a_deleted_object(
    objects: FolderObjects, tmp_path: Path, end: str, left: list[int]
) -> None:
    """Owners who read slowly kept the bytes of deleted datasets on the disk, counted for nobody."""
    objects.put(KEY, bytes(1 << 20))
    stored = os.open(tmp_path / "objects" / KEY, os.O_RDONLY)
    chunks = objects.read(KEY)
    assert len(next(chunks)) < 1 << 20
    getattr(objects, end)(KEY)
    assert os.fstat(stored).st_size == 0
    os.close(stored)
    with pytest.raises(ObjectMissingError):
        sum(map(len, chunks))
    assert [path.stat().st_size for path in (tmp_path / "objects").rglob("*") if path.is_file()] == left


def test_a_deletion_ends_the_downloads_of_the_dataset(tmp_path: Path) -> None:
    with PlaneProcess(tmp_path) as plane:
        dataset = plane.dataset(content := texts(100_000))
        url = urlsplit(plane.ask("POST", f"/datasets/{dataset}/tokens").json["url"])
        with socket.socket() as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.settimeout(60)
            reader.connect((url.hostname, url.port))
            reader.sendall(f"GET {url.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            got = len(reader.recv(100))
            assert plane.ask("DELETE", f"/datasets/{dataset}").status == 204
            while more := len(reader.recv(1 << 20)):
                got += more
        assert got < len(content)
        assert "trace" not in plane.log.read_text()


def test_a_deletion_ends_the_upload_of_the_dataset(tmp_path: Path) -> None:
    """An owner who declared, sent and deleted again and again, byte by byte, filled the disk."""
    with PlaneProcess(tmp_path) as plane:
        new = {"name": "x", "kind": "texts", "bytes": 100_000, "sha256": "0" * 64}
        made = plane.ask("POST", "/datasets", new).json
        url = urlsplit(made["upload"]["url"])
        with socket.create_connection((url.hostname, url.port), timeout=60) as sender:
            asked = f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
            sender.sendall(asked.encode() + bytes(50_000))
            objects = tmp_path / "plane" / "objects" / "datasets"
            eventually(lambda: sum(path.stat().st_size for path in objects.rglob("*")) > 0)
            assert plane.ask("DELETE", f"/datasets/{made['id']}").status == 204
            sender.sendall(b"x")
            assert b" 409 " in sender.recv(100)
        assert [path.stat().st_size for path in objects.rglob("*")] == [0]


def test_a_jump_of_the_clock_is_noticed_in_both_directions() -> None:
    wall, steady = [1000.0], [0.0]
    clock = Clock(lambda: wall[0], lambda: steady[0])

    def pass_by(seconds: float, jump: float = 0.0) -> float:
        wall[0] += seconds + jump
        steady[0] += seconds
        return clock.now()

    pass_by(100.0)
    assert clock.steady_since == 0.0
    for jump in (3600.0, -7200.0, JUMP_SECONDS + 1):
        now = pass_by(1.0, jump)
        assert clock.steady_since == now
        pass_by(50.0)
        assert clock.steady_since == now


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("LISTEN", "0.0.0.0:0", "MARKET_TRAINING_KEYS_FILE"),
        ("JWT_ISSUER", "x", "belong together"),
        ("OBJECTS", "ftp://x", "s3://bucket"),
        ("LISTEN", "nowhere", "host:port"),
        ("NAME", "Bad Name", "pattern"),
        ("IMAGE", "x" * 301, "at most 300"),
        ("FOLDER", "/dev/null/x", "MARKET_TRAINING_FOLDER: .*Not a directory"),
        ("DATABASE_URL", "nonsense", "MARKET_TRAINING_DATABASE_URL is no address of a database"),
        ("DATABASE_URL", "postgresql+psycopg://desk:se:cret@h:port/x", "is no address of a database"),
        ("DATABASE_URL", "mongodb://h/x", "is no address of a database"),
        ("DATABASE_URL", "sqlite://", "is no address of a database"),
        ("DATABASE_URL", "sqlite:////dev/null/x", "MARKET_TRAINING_DATABASE_URL: unable to open database file"),
        ("DATABASE_URL", "postgresql+psycopg://desk:secret@127.0.0.1:1/x", "MARKET_TRAINING_DATABASE_URL: connection"),
    ],
)
def test_the_plane_refuses_to_be_an_open_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    monkeypatch.setenv("MARKET_INFERENCE_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("MARKET_TRAINING_FOLDER", str(tmp_path / "plane"))
    monkeypatch.setenv(f"MARKET_TRAINING_{name}", value)
    with pytest.raises((ValidationError, ConfigurationError), match=reason) as caught:
        build(config := Config(), Access(config))
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value) or isinstance(caught.value, ValidationError)


@pytest.mark.parametrize("part", ["database", "username"])
def test_a_database_that_is_not_there_is_named(tmp_path: Path, postgres: URL, part: str) -> None:
    url = postgres.set(**{part: "stranger"}).render_as_string(hide_password=False)
    config = Config(folder=tmp_path, database_url=url)
    with pytest.raises(ConfigurationError, match=r"MARKET_TRAINING_DATABASE_URL: .*stranger"):
        build(config, Access(config))


def test_a_database_of_a_newer_version_is_named(tmp_path: Path) -> None:
    config = Config(folder=tmp_path)
    with contextlib.closing(Database(config.store_url)) as store:
        store.migrate()
        with store.begin() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigurationError, match=r"MARKET_TRAINING_FOLDER: .*9999"):
        build(config, Access(config))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"LISTEN": "0.0.0.0:0"}, "LISTEN="),
        ({"DATABASE_URL": "postgresql+psycopg://desk@127.0.0.1:1/x"}, "DATABASE_URL: connection failed"),
        ({"JWT_KEY_SET": "/dev/null/x", "JWT_ISSUER": "a", "JWT_AUDIENCE": "b"}, "JWT_KEY_SET: [Errno "),
    ],
)
def test_a_plane_that_is_refused_says_so_in_one_line(tmp_path: Path, settings: dict[str, str], reason: str) -> None:
    named = {f"MARKET_TRAINING_{name}": value for name, value in ({"LISTEN": "127.0.0.1:0"} | settings).items()}
    environment = {**os.environ, **named, "MARKET_INFERENCE_STATE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "training.plane"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)
    assert ran.returncode == 1
    [line] = [line for line in ran.stderr.splitlines() if not line.startswith("{")]  # beside the log
    assert line.startswith(f"training.plane: MARKET_TRAINING_{reason}")


def test_kubeflows_body_is_taken(process: PlaneProcess) -> None:
    job = process.job("sleep 250")
    [attempt] = process.wait(f"/jobs/{job}", "running")["attempts"]
    token = token_of(process.folder / "plane" / "machines" / attempt["name"])
    status = {"lastUpdatedTime": "2026-11-28T00:00:00+00:00", "progressPercentage": 40, "estimatedRemainingSeconds": 9,
              "metrics": [{"name": "loss", "value": "0.75"}, {"name": "grad_norm", "value": "nan"},
                          {"name": "current_step", "value": "100000"}]}  # fmt: skip
    body = json.dumps({"trainerStatus": status}).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    answer = ask("POST", f"{process.url}/api/training/jobs/{job}/metrics", body, headers)
    assert (answer.status, answer.json["stop"]) == (200, False)
    series = process.ask("GET", f"/jobs/{job}/measurements").json["series"]
    assert [100_000, 0.75] in series["loss"]
    assert "grad_norm" not in series
    other = process.job("sleep 250")
    wrong = ask("POST", f"{process.url}/api/training/jobs/{other}/metrics", body, headers)
    assert (wrong.status, wrong.json["reason"]) == (401, "TOKEN_REFUSED")
    for one in (job, other):
        process.ask("POST", f"/jobs/{one}/cancel")
    process.finished(job)
    late = ask("POST", f"{process.url}/api/training/jobs/{job}/metrics", body, headers)
    assert late.status == 401


def token_of(machine: Path) -> str:
    """The job token, from the environment of a process of the machine."""
    session = int((machine / "pid").read_text())
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == session and "JOB_TOKEN" in process.environ():
                return process.environ()["JOB_TOKEN"]
    raise AssertionError("no process of the machine")


def test_a_dataset_larger_than_the_limit_keeps_its_token(process: PlaneProcess) -> None:
    """A second plane of the same store has a lower limit: the refusal does not use the token up."""
    content = texts()
    secret = process.ask("POST", f"/datasets/{process.dataset(content)}/tokens").json["token"]
    with PlaneProcess(process.folder, MAX_DATASET_BYTES=100) as small:
        answer = ask("GET", f"{small.url}/api/training/download/{secret}")
    assert answer.status == 413
    assert answer.json["errors"][0]["limit"] == 100
    assert ask("GET", f"{process.url}/api/training/download/{secret}").content == content


def test_the_events_end_with_the_key_that_reads_them(tmp_path: Path) -> None:
    with PlaneProcess(tmp_path) as plane:
        job = plane.job("sleep 250")
        headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {plane.keys['desk']}"}
        connection = HTTPConnection(plane.url.removeprefix("http://"), timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", f"/api/training/jobs/{job}/events", headers=headers)
            stream = connection.getresponse()
            assert stream.readline().startswith(b"id: ")
            with keys.edit(tmp_path / "keys.json") as known:
                keys.revoke(known, plane.keys["desk"].split("_")[1])
            assert b"succeeded" not in stream.read()


def test_limits_of_one_owner_are_told(tmp_path: Path) -> None:
    with PlaneProcess(tmp_path, MAX_DATASETS_PER_OWNER=1, MAX_JOBS_PER_OWNER=1, MAX_WATCHERS=1) as plane:
        dataset = plane.dataset()
        declared = {"name": "x", "kind": "texts", "bytes": 3, "sha256": "0" * 64}
        assert plane.ask("POST", "/datasets", declared).json["reason"] == "OVERLOADED"
        assert plane.ask("POST", "/datasets", declared, owner="other").status == 201
        recipe, key = b"{kind: sentiment, name: sleep 250}", {"Idempotency-Key": "k"}
        job = plane.ask("POST", f"/jobs?dataset={dataset}", recipe, **key).json["id"]
        second = plane.ask("POST", f"/jobs?dataset={dataset}", b"kind: sentiment\n")
        assert (second.status, second.headers["Retry-After"]) == (429, "60")
        again = plane.ask("POST", f"/jobs?dataset={dataset}", recipe, **key)
        assert (again.status, again.json["id"]) == (200, job), "the same request makes no second job"
        watching = plane.client().follow(job)
        next(watching)
        events = f"/jobs/{job}/events"
        assert plane.ask("GET", events, Accept="text/event-stream").status == 429
        assert plane.ask("GET", events).status == 200
        watching.close()
        plane.ask("POST", f"/jobs/{job}/cancel")
        plane.finished(job)
        end = time.monotonic() + 60
        while plane.ask("GET", events, Accept="text/event-stream").status != 200:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert plane.ask("POST", f"/jobs?dataset={dataset}&dry_run=true", b"kind: sentiment\n").status == 200


def test_jobs_beyond_the_machines_wait_and_are_woken_by_the_end_of_one(process: PlaneProcess) -> None:
    dataset = process.dataset()
    done = [process.finished(job) for job in [process.job("sleep 0.2", dataset) for _ in range(4)]]
    spans = sorted((one["attempts"][0]["requested_at"], one["attempts"][0]["gone_at"]) for one in done)
    assert all(gone <= requested for (_, gone), (requested, _) in itertools.pairwise(spans))


def test_a_plane_that_was_killed_again_and_again_loses_no_job(killed: tuple[PlaneProcess, list[str]]) -> None:
    """The last test of this file: the half minute has passed."""
    plane, jobs = killed
    done = [plane.finished(job) for job in jobs]
    assert [one["state"] for one in done] == ["succeeded"] * 3
    for job in jobs:
        kinds = [one["kind"] for one in plane.ask("GET", f"/jobs/{job}/events").json["events"]]
        assert kinds.count("succeeded") == 1
