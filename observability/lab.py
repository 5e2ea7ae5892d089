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
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from benchmarks.ports import HeldPort
from benchmarks.services import Replica, Services
from market_inference import Client

RULES = Path(__file__).parent / "rules"
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
        with closing(http.client.HTTPConnection(self._address, timeout=60)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
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
        self._services = Services(folder)
        self._stack = ExitStack()
        # Prometheus scrapes fixed addresses.
        self._ports = [(HeldPort(), HeldPort()) for _ in range(REPLICAS)]
        self._replicas: list[Replica] = []
        self.target = ""
        self.http = ""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for port in (port for ports in self._ports for port in ports):
                stack.callback(port.close)
            stack.enter_context(self._services)
            self._replicas = [self._replica(number) for number in range(REPLICAS)]
            gateway = self._services.start_gateway(self._replicas)
            self.target = gateway.target
            edge = self._services.start_edge(gateway)
            self.http = edge.listen
            scraped = [metrics.address for _, metrics in self._ports]
            self.prometheus = Prometheus(
                self._folder / "prometheus",
                {"gateway": [gateway.metrics], "inference": scraped, "edge": [edge.metrics]},
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
        return self._services.gateway.key

    def client(self, api_key: str | None = None) -> Client:
        """A client of the gateway, by default with the development key. The caller closes the client."""
        return Client(self.target, api_key=api_key or self.key, timeout=60.0)

    def kill(self, number: int) -> None:
        """SIGKILL one replica."""
        self._replicas[number].service.kill()

    def revive(self, number: int) -> None:
        """Restart a killed replica on the same ports."""
        self._replicas[number] = self._replica(number)

    def _replica(self, number: int) -> Replica:
        listen, metrics = self._ports[number]
        return self._services.start_replica(listen.address, metrics_listen=metrics.address, name=f"replica-{number}")
