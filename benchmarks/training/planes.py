"""A real plane on this machine: the process, its settings, its callers, and an S3 server beside the plane."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from benchmarks.ports import HeldPort
from market_inference.cli.training.plane import Plane as Client
from market_inference.contract import keys
from training.plane.launchers.process import ProcessLauncher

ROOT = Path(__file__).parents[2]
QUICK = Path(__file__).with_name("quick.sh")
WAIT_SECONDS = 150.0
_PLANE = ("-m", "training.plane")
_SCOPES = {
    "desk": ("training:run",), "other": ("training:run",), "treasurer": ("training:budget",), "reader": ("status",),
    "head": ("training:run", "training:budget"),
}  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """Status, headers and body of one exchange."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect)


def ask(method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
    """One HTTP exchange; an error status is an answer, and redirects are not followed."""
    request = urllib.request.Request(url, body, dict(headers or {}), method=method)  # noqa: S310 -- loopback
    try:
        with _OPENER.open(request, timeout=60) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read())


class _Stopped:
    """A process that stops at the end of a `with` block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        raise NotImplementedError


class PlaneProcess(_Stopped):
    """`python -m training.plane` on a port of its own, with the pod of quick.sh. Settings lack their prefix.

    `first`: statements that the process runs before.
    """

    def __init__(self, folder: Path, *, first: str = "", **settings: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._program = ("-c", f"{first}\nfrom training.plane.main import main\nmain()") if first else _PLANE
        self.folder = folder
        self.keys = {}
        keys_file = folder / "keys.json"
        if keys_file.exists():
            self.keys = json.loads((folder / "secrets.json").read_text())
        else:
            with keys.edit(keys_file) as known:
                for owner, scopes in _SCOPES.items():
                    self.keys[owner], key = keys.issue(owner, scopes)
                    known.append(key)
            (folder / "secrets.json").write_text(json.dumps(self.keys))
        # A restart listens at the same address.
        self._port = HeldPort()
        wanted = {"LISTEN": self._port.address, "FOLDER": folder / "plane", "KEYS_FILE": keys_file, "SCRIPT": QUICK,
                  "POLL_SECONDS": 0.05, **settings}  # fmt: skip
        self._settings = {f"MARKET_TRAINING_{name}": str(value) for name, value in wanted.items()}
        self.log = folder / "plane.log"
        self.start()

    def start(self) -> None:
        credentials = {"AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "SK"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", *self._program],
                env={**os.environ, "PYTHONPATH": str(ROOT), **credentials, **self._settings},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        line = self.process.stdout.readline()
        if not line:
            self.kill()
            self._port.close()
            raise AssertionError(self.log.read_text())
        self.url = f"http://{json.loads(line)['listen']}"

    def kill(self) -> None:
        """SIGKILL to the plane's own process."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def stop(self) -> None:
        """End the plane and every machine that it has left."""
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self._port.close()
        machines = ProcessLauncher(self.folder / "plane" / "machines")
        for machine in machines.mine():
            machines.stop(machine, now=True)

    @property
    def store_url(self) -> str:
        """The address of the plane's database."""
        return self._settings.get("MARKET_TRAINING_DATABASE_URL", f"sqlite:///{self.folder}/plane/store.db")

    def client(self, owner: str = "desk") -> Client:
        return Client(self.url, self.keys[owner])

    def ask(self, method: str, path: str, body: object = None, owner: str = "desk", **headers: str) -> Answer:
        """One exchange at /api/training; an error status is an answer."""
        sent = {"Authorization": f"Bearer {self.keys[owner]}", "Content-Type": "application/json", **headers}
        content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        return ask(method, f"{self.url}/api/training{path}", content, sent)

    def wait(self, path: str, *states: str) -> Any:
        """The resource at the path, once its state is one of `states`."""
        end = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < end:
            found = self.client().json("GET", path)
            if found["state"] in states:
                return found
            time.sleep(0.05)
        raise AssertionError(f"{path} is {found}, log:\n{self.log.read_text()[-3000:]}")

    def dataset(self, content: bytes | None = None, kind: str = "texts", owner: str = "desk") -> str:
        """A dataset that is ready."""
        file = self.folder / f"rows-{time.monotonic_ns()}.csv"
        file.write_bytes(content if content is not None else texts())
        made = self.client(owner).upload(file, kind, "rows.csv")
        file.unlink()
        if owner == "desk":
            self.wait(f"/datasets/{made}", "ready")
        return made

    def job(self, name: str, dataset: str = "", **fields: object) -> str:
        """A job of the quick pod; the name selects the pod's behaviour."""
        recipe = {"kind": "sentiment", "name": name, **fields}
        return self.client().run(json.dumps(recipe).encode(), dataset or self.dataset())["id"]

    def finished(self, job: str) -> Any:
        return self.wait(f"/jobs/{job}", "succeeded", "failed", "cancelled", "refused")


def texts(rows: int = 40) -> bytes:
    moves = ("rose", "fell")
    lines = [f"Company {n} says that its profit {moves[n % 2]} by {n} percent,{2 * (n % 2)}" for n in range(rows)]
    return ("text,label\n" + "\n".join(lines) + "\n").encode()


class S3Server(_Stopped):
    """SeaweedFS with one bucket. SeaweedFS checks signatures, lengths and conditions."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        identities = {"identities": [{"name": "test", "credentials": [{"accessKey": "AK", "secretKey": "SK"}],
                                      "actions": ["Admin", "Read", "Write", "List"]}]}  # fmt: skip
        (folder / "s3.json").write_text(json.dumps(identities))
        self._ports = [HeldPort() for _ in range(8)]
        self.port, *others = (port.number for port in self._ports)
        names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
                 "s3.port.grpc")  # fmt: skip
        ports = [f"-{name}={port}" for name, port in zip(names, others, strict=True)]
        self._command = [
            weed(), "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false",
            # A lone master waits for no other: an election takes ten seconds.
            "-master.peers=none", "-filer", "-s3", f"-s3.port={self.port}", f"-s3.config={folder / 's3.json'}",
            "-volume.max=20", "-master.volumeSizeLimitMB=64", "-s3.port.iceberg=0", "-s3.port.lance=0", *ports,
        ]  # fmt: skip
        self.endpoint = f"http://127.0.0.1:{self.port}"
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    def start(self) -> None:
        """Start, and wait until an object can be written."""
        with (self._folder / "weed.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )
        self._make_bucket()

    @property
    def objects(self) -> str:
        return f"s3://training?endpoint={self.endpoint}"

    def _make_bucket(self) -> None:
        """Wait until the server takes an object; its volumes come some seconds after its port."""
        quick = Config(retries={"max_attempts": 0}, connect_timeout=1, read_timeout=5)
        s3 = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id="AK",
            aws_secret_access_key="SK",  # noqa: S106 -- of this test's own server
            region_name="us-east-1",
            config=quick,
        )
        end = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                with suppress(s3.exceptions.BucketAlreadyExists, s3.exceptions.BucketAlreadyOwnedByYou):
                    s3.create_bucket(Bucket="training")
                s3.put_object(Bucket="training", Key="ready", Body=b"ready")
                break
            except (BotoCoreError, ClientError):
                assert time.monotonic() < end, (self._folder / "weed.log").read_text()[-2000:]
                assert self._process.poll() is None, (self._folder / "weed.log").read_text()[-2000:]
                time.sleep(0.2)
        s3.close()

    def kill(self) -> None:
        """SIGKILL; the objects stay."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End and delete the objects."""
        self.kill()
        for port in self._ports:
            port.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def weed() -> str:
    return str(Path(sys.executable).with_name("weed"))
