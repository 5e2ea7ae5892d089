"""A gateway, two inference replicas, an HTTP edge and a real Prometheus on this machine, with short alert windows.

Owns the processes and the queries to Prometheus. Closing ends all processes. The demonstration is in observe.py.
"""

import http.client
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from benchmarks.ports import HeldPort
from market_inference import Client
from market_inference.cli.process import ServiceProcess

RULES = Path(__file__).parent / "rules"
LOOPBACK = "127.0.0.1"
# Replaces the minutes in the rules' `for:`. In production the minutes keep short disturbances from paging.
WAIT_BEFORE_FIRING = "2s"
REPLICAS = 2
_START_SECONDS = 180.0
_GRACE_SECONDS = 60.0
_POLL_SECONDS = 0.25


class PrometheusMissingError(RuntimeError):
    """The program prometheus is not installed."""


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Poll until the condition is true, and return the value. Raises TimeoutError with `what`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(_POLL_SECONDS)
    return value


class Prometheus:
    """A Prometheus process with the repository's rules that scrapes `targets` (addresses by job) every second."""

    def __init__(self, folder: Path, targets: Mapping[str, list[str]]) -> None:
        program = shutil.which("prometheus")
        if program is None:
            raise PrometheusMissingError("prometheus is not installed (Debian: apt install prometheus)")
        folder.mkdir(parents=True)
        self._port = HeldPort()
        self._address = self._port.address
        self.log = folder / "prometheus.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603
                [
                    program,
                    f"--config.file={_configuration(folder, targets)}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address={self._address}",
                    "--enable-feature=exemplar-storage",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_ready(self) -> None:
        """Wait until Prometheus answers. Raises TimeoutError."""
        until(self._ready, _START_SECONDS, f"prometheus, see {self.log}")

    def _ready(self) -> bool:
        try:
            self._get("/-/ready")
        except (OSError, http.client.HTTPException):
            return False
        return True

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The samples of an instant query: {"metric": labels, "value": [time, text]} each."""
        answer = json.loads(self._get("/api/v1/query?" + urlencode({"query": expr})))
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def value(self, expr: str) -> float:
        """The first sample of a query, or NaN without samples."""
        found = self.query(expr)
        return float(found[0]["value"][1]) if found else float("nan")

    def traces(self, expr: str) -> set[str]:
        """The trace ids of the last minute's exemplars, for the series of an expression."""
        now = time.time()
        asked = urlencode({"query": expr, "start": now - 60, "end": now})
        answer = json.loads(self._get(f"/api/v1/query_exemplars?{asked}"))
        return {exemplar["labels"]["trace_id"] for series in answer["data"] for exemplar in series["exemplars"]}

    def firing(self, alert: str) -> bool:
        return bool(self.query(f'ALERTS{{alertname="{alert}", alertstate="firing"}}'))

    def _get(self, path: str) -> bytes:
        connection = http.client.HTTPConnection(self._address, timeout=60)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise http.client.HTTPException(f"{answer.status} {path}: {body[:300]!r}")
        return body

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(_GRACE_SECONDS)
        self._port.close()


def _configuration(folder: Path, targets: Mapping[str, list[str]]) -> Path:
    """Write the rules with short waits and a configuration with these rules (as JSON, a subset of YAML)."""
    for rules in RULES.glob("*.yml"):
        text = re.sub(r"for: \S+", f"for: {WAIT_BEFORE_FIRING}", rules.read_text(encoding="utf-8"))
        (folder / rules.name).write_text(text, encoding="utf-8")
    path = folder / "prometheus.json"
    jobs = [{"job_name": job, "static_configs": [{"targets": where}]} for job, where in targets.items()]
    path.write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
                "rule_files": ["*.yml"],
                "scrape_configs": jobs,
            }
        ),
        encoding="utf-8",
    )
    return path


class Lab:
    """A context manager; `folder` takes logs, keys and Prometheus's data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        # Prometheus scrapes fixed addresses.
        self._replicas = [(HeldPort(), HeldPort()) for _ in range(REPLICAS)]
        self._processes: dict[int, ServiceProcess] = {}
        self.target = ""
        self.http = ""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self._end_replicas)
            for number in range(REPLICAS):
                self._launch(number)
            for process in self._processes.values():
                process.wait_ready(_START_SECONDS)
            gateway = self._gateway()
            stack.callback(gateway.stop, _GRACE_SECONDS)
            ready = gateway.wait_ready(_START_SECONDS)
            self.target = ready.listen
            edge = self._edge()
            stack.callback(edge.stop, _GRACE_SECONDS)
            over_http = edge.wait_ready(_START_SECONDS)
            self.http = over_http.listen
            scraped = [metrics.address for _, metrics in self._replicas]
            self.prometheus = Prometheus(
                self._folder / "prometheus",
                {"gateway": [ready.metrics], "inference": scraped, "edge": [over_http.metrics]},
            )
            stack.callback(self.prometheus.close)
            self.prometheus.wait_ready()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def key(self) -> str:
        """The gateway's development key."""
        return (self._folder / "development-key").read_text(encoding="utf-8").strip()

    def client(self, api_key: str | None = None) -> Client:
        """A client of the gateway, by default with the development key. The caller closes the client."""
        return Client(self.target, api_key=api_key or self.key, timeout=60.0)

    def kill(self, number: int) -> None:
        """SIGKILL one replica."""
        self._processes[number].kill()

    def revive(self, number: int) -> None:
        """Restart a killed replica on the same ports."""
        self._launch(number)
        self._processes[number].wait_ready(_START_SECONDS)

    def _launch(self, number: int) -> None:
        listen, metrics = self._replicas[number]
        self._processes[number] = self._service(
            "inference",
            f"inference-{number}",
            {
                "MARKET_INFERENCE_LISTEN": listen.address,
                "MARKET_INFERENCE_METRICS_LISTEN": metrics.address,
                "MARKET_INFERENCE_NAME": f"replica-{number}",
            },
        )

    def _gateway(self) -> ServiceProcess:
        replicas = ",".join(listen.address for listen, _ in self._replicas)
        return self._service(
            "gateway",
            "gateway",
            {
                "MARKET_GATEWAY_LISTEN": f"{LOOPBACK}:0",
                "MARKET_GATEWAY_METRICS_LISTEN": f"{LOOPBACK}:0",
                "MARKET_GATEWAY_REPLICAS": replicas,
            },
        )

    def _edge(self) -> ServiceProcess:
        return self._service(
            "edge",
            "edge",
            {
                "MARKET_EDGE_LISTEN": f"{LOOPBACK}:0",
                "MARKET_EDGE_METRICS_LISTEN": f"{LOOPBACK}:0",
                "MARKET_EDGE_GATEWAY": self.target,
            },
        )

    def _service(self, module: str, name: str, environment: dict[str, str]) -> ServiceProcess:
        state = {"MARKET_INFERENCE_STATE_DIR": str(self._folder)}
        return ServiceProcess(module, {**environment, **state}, self._folder / f"{name}.log", lambda ended: None)

    def _end_replicas(self) -> None:
        for process in self._processes.values():
            process.stop(_GRACE_SECONDS)
        for port in (port for ports in self._replicas for port in ports):
            port.close()
