"""Run the install steps of the Dockerfiles in fresh virtual environments, then start the services from the result.

Needs no container engine; base image and users are not covered. Checks: the dependencies resolve from the constraints,
the copied sources are sufficient, an unreachable hub does not fail the build, nothing is written outside /tmp, the
gateway, the edge and the service for CPUs have no torch, and the pairs answer, also over HTTP. Dockerfile.training is
not walked, because its steps install Debian packages and make users' folders; test_training_image.py checks the file.

    python tests/images/walk.py                     all images, then the pairs (downloads torch)
    python tests/images/walk.py gateway cpu edge    without torch
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# A hub that does not exist, to cover an unreachable hub in every run.
ARGUMENTS = {"MODEL_IDS": "nobody/no-such-model"}
AWAY = {"HF_ENDPOINT": "http://127.0.0.1:9"}
BUDGETS_MB = {"gateway": 200, "cpu": 500, "edge": 400}
HEALTHY_WITHIN = 120.0
LEFT_OUT = ("groupadd",)


class WalkError(Exception):
    """A step or a check of a service failed."""


@dataclass(frozen=True)
class Step:
    """An instruction of a Dockerfile, with joined continuation lines."""

    word: str
    rest: str


@dataclass
class Dockerfile:
    """The instructions of a Dockerfile, and the environment of the last stage."""

    steps: list[Step]
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Dockerfile":
        text = re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        lines = [line for line in re.sub(r"\\\n\s*", "", text).splitlines() if line.strip()]
        return cls([Step(*line.split(None, 1)) for line in lines])

    @property
    def last_stage(self) -> list[Step]:
        last = max(place for place, step in enumerate(self.steps) if step.word == "FROM")
        return self.steps[last:]

    def environment_of_last_stage(self) -> dict[str, str]:
        return dict(pair for step in self.last_stage if step.word == "ENV" for pair in variables(step.rest))

    def last(self, word: str) -> str:
        return next(step.rest for step in reversed(self.last_stage) if step.word == word)

    def command(self) -> list[str]:
        return list(json.loads(self.last("CMD")))

    def health_check(self) -> list[str]:
        return list(json.loads(self.last("HEALTHCHECK").partition(" CMD ")[2]))


def variables(rest: str) -> list[tuple[str, str]]:
    """`A=1 B="x y"` as pairs."""
    return [(name, value) for name, _, value in (word.partition("=") for word in shlex.split(rest))]


class Image:
    """The contents of an image, in the folder `app` instead of /app."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.file = Dockerfile.read(ROOT / f"Dockerfile.{name}")
        self.sources = folder / name / "src"
        self.app = folder / name / "app"
        self.tmp = folder / name / "tmp"
        for path in (self.sources, self.app, self.tmp):
            path.mkdir(parents=True)

    def build(self) -> None:
        """Run all steps of all stages before the last, and the COPY steps of the last stage."""
        environment: dict[str, str] = {}
        for step in self.file.steps[: -len(self.file.last_stage)]:
            if step.word == "ENV":
                environment |= dict(variables(step.rest))
            elif step.word == "COPY":
                self._copy(step.rest)
            elif step.word == "RUN":
                self._run(step.rest, environment)
        for step in self.file.last_stage:
            if step.word == "COPY" and not step.rest.startswith("--from"):
                self._copy(step.rest)
            elif step.word == "COPY" and not self._in_app(step.rest.split()[-1]).exists():
                raise WalkError(f"{self.name}: COPY {step.rest}: nothing there to copy")
            if step.word == "RUN" and not any(word in step.rest for word in LEFT_OUT):
                raise WalkError(f"{self.name}: this walk does not know how to take: RUN {step.rest}")

    def _copy(self, rest: str) -> None:
        *sources, target = rest.split()
        for source in sources:
            here = ROOT / source
            there = self._in_app(target) if target.startswith("/app/") else self.sources / target
            if here.is_dir():
                shutil.copytree(here, there, ignore=shutil.ignore_patterns("__pycache__", "*.py[co]"))
            else:
                shutil.copy(here, there)

    def _run(self, rest: str, environment: dict[str, str]) -> None:
        command = re.sub(r"^(--mount=\S+\s+)+", "", rest)
        say(f"{self.name}: {command[:110]}")
        took = time.monotonic()
        done = subprocess.run(
            ["/bin/sh", "-ec", self._moved(command)],
            cwd=self.sources,
            env={**os.environ, **self._environment(environment), **ARGUMENTS, **AWAY},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise WalkError(f"{self.name}: RUN {command}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        for line in done.stderr.splitlines():
            if line.startswith("warning: "):
                say(f"{self.name}: {line}")
        say(f"{self.name}: {time.monotonic() - took:.0f} s")

    def _environment(self, declared: dict[str, str]) -> dict[str, str]:
        """The declared variables with moved paths, and this Python instead of the base image's Python."""
        moved = {name: self._moved(value) for name, value in declared.items() if name != "PIP_CACHE_DIR"}
        moved["PATH"] = f"{self.app}/venv/bin:{Path(sys.base_prefix) / 'bin'}:/usr/bin:/bin"
        return moved

    def _moved(self, text: str) -> str:
        return re.sub(r"/app\b", str(self.app), text)

    def _in_app(self, path: str) -> Path:
        return Path(self._moved(path))

    def serving_environment(self, **settings: str) -> dict[str, str]:
        """The image's environment without this machine's variables, and with loopback instead of all interfaces."""
        declared = self._environment(self.file.environment_of_last_stage())
        declared = {name: re.sub(r"^0\.0\.0\.0:\d+$", "127.0.0.1:0", value) for name, value in declared.items()}
        return {**declared, "HOME": str(self.tmp), "TMPDIR": str(self.tmp), **AWAY, **settings}

    def run(self, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
        environment = self.serving_environment(**settings)
        program = shutil.which(command[0], path=environment["PATH"]) or command[0]
        return subprocess.run(
            [program, *command[1:]], cwd=self.tmp, env=environment, capture_output=True, text=True, check=False
        )

    @contextmanager
    def serving(self, **settings: str) -> Iterator[dict[str, str]]:
        """Start the image's command and yield the ready line; then send SIGTERM and require exit status 0."""
        environment = self.serving_environment(**settings)
        command = self.file.command()
        program = shutil.which(command[0], path=environment["PATH"]) or command[0]
        log = self.tmp / "service.log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [program, *command[1:]], cwd=self.tmp, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True
            )
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise WalkError(f"{self.name} did not start:\n{log.read_text()[-3000:]}")
            yield json.loads(line)
        finally:
            process.terminate()
            status = process.wait(60)
            if process.stdout:
                process.stdout.close()
        if status:
            raise WalkError(f"{self.name} ended with status {status}:\n{log.read_text()[-3000:]}")

    def healthy(self, address: str) -> bool:
        """The result of the image's HEALTHCHECK for a process at `address`."""
        check = [re.sub(r"127\.0\.0\.1:\d+", address, word) for word in self.file.health_check()]
        return self.run(*check).returncode == 0

    def wait_healthy(self, address: str) -> None:
        until = time.monotonic() + HEALTHY_WITHIN
        while not self.healthy(address):
            if time.monotonic() > until:
                raise WalkError(f"{self.name} is not healthy after {HEALTHY_WITHIN:g} s: {self.tmp / 'service.log'}")

    def contents(self) -> set[tuple[str, int]]:
        return {(str(path), path.stat().st_mtime_ns) for path in self.app.rglob("*") if path.is_file()}

    def megabytes(self) -> float:
        return (
            sum(path.stat().st_size for path in self.app.rglob("*") if path.is_file() and not path.is_symlink()) / 1e6
        )


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def make_key(gateway: Image) -> tuple[Path, str]:
    """A keys file with one key, and the secret, issued as in docs/operations.md."""
    path = gateway.tmp / "keys.json"
    done = gateway.run("market-inference", "keys", "issue", "--file", str(path), "--owner", "walk")
    if done.returncode:
        raise WalkError(done.stderr)
    return path, done.stdout.strip()


def check_light(image: Image, *absent: str) -> None:
    """The image does not hold the modules `absent`, and keeps its size budget."""
    for module in absent:
        if image.run("python", "-c", f"import {module}").returncode == 0:
            raise WalkError(f"the image {image.name} holds {module}")
    size, budget = image.megabytes(), BUDGETS_MB[image.name]
    say(f"{image.name}: {size:.0f} MB beside the base image (budget {budget} MB)")
    if size > budget:
        raise WalkError(f"the image {image.name} is over its budget")


def check_gateway(gateway: Image) -> None:
    """The gateway starts without a replica, and refuses an open port without keys."""
    refused = gateway.run(*gateway.file.command(), MARKET_GATEWAY_LISTEN="0.0.0.0:0")
    if refused.returncode == 0 or "open to other machines" not in refused.stderr:
        raise WalkError(f"a gateway without keys did not refuse to serve every interface:\n{refused.stderr[-3000:]}")
    keys, _ = make_key(gateway)
    with gateway.serving(MARKET_GATEWAY_KEYS_FILE=str(keys), MARKET_GATEWAY_REPLICAS="127.0.0.1:9") as ready:
        if gateway.healthy(ready["listen"]):
            raise WalkError("the gateway calls itself healthy without a replica")
    say("gateway: starts, refuses an open port without keys, is not healthy without a replica")


def check_pair(gateway: Image, inference: Image) -> None:
    """Both services start; the client in the gateway's image reports a healthy status; no file is written."""
    before = gateway.contents() | inference.contents()
    keys, secret = make_key(gateway)
    with inference.serving() as behind:
        inference.wait_healthy(behind["listen"])
        with gateway.serving(MARKET_GATEWAY_KEYS_FILE=str(keys), MARKET_GATEWAY_REPLICAS=behind["listen"]) as ready:
            gateway.wait_healthy(ready["listen"])
            # The pair is ready with the first ready engine, but healthy only with all engines.
            until = time.monotonic() + HEALTHY_WITHIN
            ask = ("market-inference", "status", "--json", "--target", ready["listen"])
            while (done := gateway.run(*ask, MARKET_INFERENCE_API_KEY=secret)).returncode:
                if time.monotonic() > until:
                    raise WalkError(f"status: {done.stdout}{done.stderr}")
    written = (gateway.contents() | inference.contents()) - before
    if written:
        raise WalkError(f"written where the root is read-only: {sorted(written)[:5]}")
    say(f"gateway and {inference.name}: healthy by their own probes, nothing written beside /tmp")


def check_edge(edge: Image, gateway: Image, inference: Image) -> None:
    """The edge refuses an open port without TLS; before a pair it answers a forecast and serves the page."""
    refused = edge.run(*edge.file.command(), MARKET_EDGE_LISTEN="0.0.0.0:0")
    if refused.returncode == 0 or "MARKET_EDGE_ALLOW_PLAINTEXT" not in refused.stderr:
        raise WalkError(f"an edge without TLS did not refuse to serve every interface:\n{refused.stderr[-3000:]}")
    before = edge.contents()
    keys, secret = make_key(gateway)
    with inference.serving() as behind:
        inference.wait_healthy(behind["listen"])
        with gateway.serving(MARKET_GATEWAY_KEYS_FILE=str(keys), MARKET_GATEWAY_REPLICAS=behind["listen"]) as ready:
            gateway.wait_healthy(ready["listen"])
            with edge.serving(MARKET_EDGE_GATEWAY=ready["listen"]) as over_http:
                edge.wait_healthy(over_http["listen"])
                body = json.dumps({"time_series": list(range(1, 41)), "horizon": 3}).encode()
                head = {"authorization": f"Bearer {secret}", "content-type": "application/json"}
                url = f"http://{over_http['listen']}"
                asked = urllib.request.Request(f"{url}/v1/predict", body, head)  # noqa: S310 -- our own URL
                with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310
                    found = json.load(answer)
                if len(found["forecasts"][0]["forecast"]["point"]) != 3:
                    raise WalkError(f"the edge answered {found}")
                with urllib.request.urlopen(url, timeout=60) as page:
                    if b"<html" not in page.read().lower():
                        raise WalkError("the edge has no page")
    if written := edge.contents() - before:
        raise WalkError(f"written where the root is read-only: {sorted(written)[:5]}")
    say("edge: refuses an open port without TLS, answers a forecast and the page before the pair, writes nothing")


def check_worker(inference: Image) -> None:
    """The RunPod worker in the same image answers the SDK's local test."""
    done = inference.run("python", "-m", "serverless", "--test_input", '{"input": {"action": "health"}}')
    if done.returncode:
        raise WalkError(f"serverless: {done.stdout[-2000:]}{done.stderr[-3000:]}")
    say("worker: answers --test_input")


def main(names: Sequence[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="walk-") as folder:
        images = {name: Image(name, Path(folder)) for name in names or ("gateway", "edge", "cpu", "gpu")}
        try:
            for image in images.values():
                image.build()
            check_light(images["gateway"], "torch", "transformers", "talib")
            check_gateway(images["gateway"])
            if "cpu" in images:
                check_light(images["cpu"], "torch", "transformers")
                check_pair(images["gateway"], images["cpu"])
            if "edge" in images:
                check_light(images["edge"], "torch", "transformers", "talib", "onnxruntime")
                if inference := images.get("cpu") or images.get("gpu"):
                    check_edge(images["edge"], images["gateway"], inference)
            if "gpu" in images:
                size = images["gpu"].megabytes()
                say(f"gpu: {size:.0f} MB beside the base image (this machine's build of torch)")
                check_pair(images["gateway"], images["gpu"])
                check_worker(images["gpu"])
        except WalkError as error:
            sys.stderr.write(f"{error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
