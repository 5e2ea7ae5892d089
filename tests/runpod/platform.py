"""RunPod on loopback: REST v2, the queues of endpoints, and pods that are processes of this computer.

Owns the platform's documented behaviour, and faults by name. Every request and answer is checked
against the OpenAPI documents of contract.py; `problems` collects the violations. A pod runs the real
training/pod/run.sh in a session of its own, and starts the script again whenever it ends, as RunPod does.
"""

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.runpod.contract import DOCUMENTS

KEY = "rpa_very-secret-key"
ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "training" / "pod" / "run.sh"
CREATED_AT = "2026-11-28T12:00:00Z"
LOST = 0


@dataclass
class RefusalError(Exception):
    """An answer with a problem document; LOST closes the connection instead."""

    status: int
    detail: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Pod:
    """A pod and its container."""

    id: str
    fields: dict[str, Any]
    usd_per_hour: float
    status: str = "RUNNING"
    key: str = field(default_factory=lambda: f"rpa_pod_{secrets.token_hex(8)}")
    listed_at: float = 0.0
    starts: int = 0
    began: float = field(default_factory=time.time)
    gone_at: float | None = None
    process: subprocess.Popen[bytes] | None = None
    log: Path | None = None


class Platform:
    """One account. `folder`: where pods run; without one, pods are records alone."""

    def __init__(self, folder: Path | None = None) -> None:
        self.templates: dict[str, dict[str, Any]] = {}
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.pods: dict[str, Pod] = {}
        self.past: list[Pod] = []
        self.calls: list[str] = []
        self.problems: list[str] = []
        self.gpus = {
            "NVIDIA L4": {"pool": "AMPERE_24", "secure": 0.39, "serverless": 0.4},
            "NVIDIA RTX A5000": {"pool": "AMPERE_24", "secure": 0.27, "serverless": 0.3},
        }
        self.environment: dict[str, str] = {}
        self.refuse_next: list[RefusalError] = []
        self.refuse: dict[str, list[RefusalError]] = {}
        """By operation, such as `POST /v2/pods`: one refusal for each of the next calls."""
        self.lose_answers_to: set[str] = set()
        """Operations that are carried out once without an answer."""
        self.unlisted_seconds = 0.0
        """How long a new pod is missing from the list."""
        self.price_factor = 1.0
        """The cost of a pod as a multiple of the catalog's price."""
        self.bill_factor = 1.0
        self.beside: Callable[[str, str, Any, str], Any] | None = None
        """Answers paths outside /v2 of the REST API: queues of endpoints, a registry of images."""
        self._folder = folder
        self._lock = threading.RLock()
        self._threads: list[threading.Thread] = []
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        """End every pod and the server."""
        for pod in list(self.pods.values()):
            self._end(pod)
        for thread in self._threads:
            thread.join(60)
        self._server.shutdown()
        self._thread.join(60)
        self._server.server_close()

    @property
    def changes(self) -> list[str]:
        """The calls that were to change something."""
        return [call for call in self.calls if not call.startswith("GET")]

    def live(self, name: str = "") -> list[Pod]:
        """The pods that are billed."""
        return [pod for pod in list(self.pods.values()) if name in pod.fields["name"]]

    def kill_host(self, pod: Pod) -> None:
        """The host dies: SIGKILL to every process of the pod, which is EXITED afterwards."""
        pod.status = "EXITED"
        self._kill(pod)

    def answer(self, method: str, target: str, body: Any, authorization: str) -> tuple[int, Any, dict[str, str]]:
        """Status, document and headers."""
        path = urllib.parse.urlsplit(target).path
        if not re.match(r"/v2/(pods|serverless|templates|catalog|billing)(/|$)", path):
            return self._extra(method, target, body, authorization)
        operation = f"{method} {re.sub(r'(?<=pods/|ates/|less/)[^/]+', '{id}', path)}"
        self.calls.append(operation)
        for document in DOCUMENTS:
            self.problems += [f"{operation}: {one}" for one in document.request(method, target, body)]
        status, found, headers = self._carried_out(operation, method, target, body, authorization)
        for document in DOCUMENTS if status else ():
            self.problems += [f"{operation} {status}: {one}" for one in document.answer(method, target, status, found)]
        return status, found, headers

    def _carried_out(
        self, operation: str, method: str, target: str, body: Any, authorization: str
    ) -> tuple[int, Any, dict[str, str]]:
        try:
            self._refuse(operation, target, authorization)
            with self._lock:
                status, found = self._do(operation, target, body)
        except RefusalError as refusal:
            document = {"title": "Refused", "status": refusal.status, "detail": refusal.detail or "refused"}
            return refusal.status, document, refusal.headers
        if operation in self.lose_answers_to:
            self.lose_answers_to.discard(operation)
            return LOST, None, {}
        return status, found, {}

    def _refuse(self, operation: str, target: str, authorization: str) -> None:
        if self.refuse_next:
            raise self.refuse_next.pop(0)
        if self.refuse.get(operation):
            raise self.refuse[operation].pop(0)
        own = self.pods.get(target.rpartition("/")[2])
        of_pod = operation == "DELETE /v2/pods/{id}" and own is not None and authorization == f"Bearer {own.key}"
        if authorization != f"Bearer {KEY}" and not of_pod:
            raise RefusalError(401)

    def _extra(self, method: str, target: str, body: Any, authorization: str) -> tuple[int, Any, dict[str, str]]:
        found = 404 if self.beside is None else self.beside(method, target, body, authorization)
        return (found, None, {}) if isinstance(found, int) else (200, found, {})

    def _do(self, operation: str, target: str, body: Any) -> tuple[int, Any]:
        split = urllib.parse.urlsplit(target)
        query, last = dict(urllib.parse.parse_qsl(split.query)), urllib.parse.unquote(split.path.rpartition("/")[2])
        if operation == "GET /v2/catalog/gpus":
            return 200, {"gpus": [self._gpu(name) for name in self.gpus]}
        if operation == "GET /v2/billing/pods":
            return 200, self._bill(query["podId"])
        if operation == "GET /v2/pods/{id}/logs":
            return 200, self._log(split.path.split("/")[3])
        method, _, resource = operation.partition(" ")
        if resource.startswith("/v2/pods"):
            return self._pods(method, last, body)
        kind, store = ("templates", self.templates) if "templates" in resource else ("endpoints", self.endpoints)
        if method == "GET":
            return 200, {kind: list(store.values())}
        if method == "POST":
            make = self._new_template if kind == "templates" else self._new_endpoint
            return 201, make(body)
        if last not in store:
            raise RefusalError(404)
        if method == "PATCH":
            return 200, self._changed(kind, store[last], body)
        return self._deleted(kind, last)

    def _gpu(self, name: str) -> dict[str, Any]:
        known = self.gpus[name]
        price = {"secure": known["secure"], "community": 0.2, "serverless": known["serverless"]}
        return {
            "id": name, "name": name.removeprefix("NVIDIA "), "pool": known["pool"], "manufacturer": "NVIDIA",
            "memory": 24, "secure": True, "community": True, "price": price, "maxCount": {"secure": 8, "community": 4},
            "availability": known.get("availability", "HIGH"),
        }  # fmt: skip

    def _new_template(self, body: dict[str, Any]) -> dict[str, Any]:
        self._unique(self.templates, body["name"])
        made = {
            "id": f"template-{len(self.templates) + 1}", "args": "", "disk": 20, "env": {}, "ports": [],
            "registry": None, "mounts": {}, "serverless": False, "public": False, "category": "NVIDIA",
            "startSsh": True, "startJupyter": True, "allowedCudaVersions": [], **body,
        }  # fmt: skip
        self.templates[made["id"]] = made
        return made

    def _new_endpoint(self, body: dict[str, Any]) -> dict[str, Any]:
        self._unique(self.endpoints, body["name"])
        body = dict(body)
        template = self.templates.get(body.pop("templateId", ""))
        if template is None:
            raise RefusalError(404, "no such template")
        inherited = {name: template[name] for name in ("image", "args", "disk", "env", "ports", "registry")}
        made = {
            "id": f"endpoint-{len(self.endpoints) + 1}", **inherited, "dataCenterIds": [], "networkVolumes": [],
            "timeout": 300000, "flashboot": "OFF", "createdAt": CREATED_AT, **body,
        }  # fmt: skip
        made["gpu"] = {"count": 1, "allowedCudaVersions": [], "minCudaVersion": None, **body["gpu"]}
        self.endpoints[made["id"]] = made
        return made

    def _unique(self, store: dict[str, dict[str, Any]], name: str) -> None:
        if any(record["name"] == name for record in store.values()):
            raise RefusalError(400, "the name must be unique")

    def _changed(self, kind: str, record: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        if kind == "endpoints" and "gpu" in body:
            body = {**body, "gpu": {**record["gpu"], **body["gpu"]}}
        record.update(body)
        return record

    def _deleted(self, kind: str, record_id: str) -> tuple[int, None]:
        if kind == "endpoints":
            image = self.endpoints.pop(record_id)["image"]
            bound = [key for key, one in self.templates.items() if one["image"] == image]
            for key in bound[:1]:
                del self.templates[key]
        else:
            del self.templates[record_id]
        return 204, None

    def _pods(self, method: str, pod_id: str, body: Any) -> tuple[int, Any]:
        if method == "POST":
            return 201, self._record(self._new_pod(body))
        if pod_id == "pods":
            now = time.time()
            return 200, {"pods": [self._record(one) for one in self.pods.values() if one.listed_at <= now]}
        pod = self.pods.get(pod_id)
        if pod is None:
            raise RefusalError(404)
        if method == "DELETE":
            self._end(pod)
            return 204, None
        return 200, self._record(pod)

    def _new_pod(self, body: dict[str, Any]) -> Pod:
        known = self.gpus.get(body["gpu"]["id"])
        if known is None or known.get("availability") == "NONE":
            raise RefusalError(400, "there are no instances currently available")
        price = known["secure"] * body["gpu"].get("count", 1) * self.price_factor
        pod = Pod(f"pod{secrets.token_hex(4)}", body, price, listed_at=time.time() + self.unlisted_seconds)
        self.pods[pod.id] = pod
        if self._folder is not None:
            thread = threading.Thread(target=self._run, args=(pod,), name=pod.id)
            self._threads.append(thread)
            thread.start()
        return pod

    def _record(self, pod: Pod) -> dict[str, Any]:
        given = pod.fields
        return {
            "id": pod.id, "name": given["name"], "status": pod.status, "image": given["image"],
            "actions": ["stop", "restart", "terminate"], "args": given.get("args", ""), "disk": given.get("disk", 20),
            "mounts": {}, "ports": given.get("ports", []), "env": given.get("env", {}), "registry": None,
            "gpu": {"id": given["gpu"]["id"], "count": given["gpu"].get("count", 1)}, "cloud": "SECURE",
            "dataCenterId": "US-KS-2", "cudaVersion": "12.8", "ssh": {"proxy": None, "direct": None}, "template": None,
            "cost": pod.usd_per_hour if pod.status in {"PROVISIONING", "STARTING", "RUNNING"} else 0.0,
            "locked": False, "runtime": None, "createdAt": CREATED_AT, "startedAt": CREATED_AT,
            "globalNetworking": {"enabled": False},
        }  # fmt: skip

    def _bill(self, pod_id: str) -> dict[str, Any]:
        found = [pod for pod in (*self.past, *self.pods.values()) if pod.id == pod_id]
        total = sum(((p.gone_at or time.time()) - p.began) / 3600 * p.usd_per_hour for p in found) * self.bill_factor
        amounts = {"totalAmount": total, "gpuAmount": total, "cpuAmount": 0.0, "diskAmount": 0.0}
        span = {"startTime": CREATED_AT, "endTime": "2026-11-28T13:00:00Z"}
        query = {**span, "bucketSize": "hour", "podId": pod_id}
        metadata = {"query": query, "recordCount": len(found), "uniquePodCount": len(found), "totals": amounts}
        return {"records": [{**span, **amounts, "podId": pod_id} for _ in found], "metadata": metadata}

    def _log(self, pod_id: str) -> str:
        pod = self.pods.get(pod_id)
        if pod is None:
            raise RefusalError(404)
        lines = pod.log.read_text().splitlines() if pod.log is not None and pod.log.exists() else []
        events = [{"source": "container", "line": line, "ts": CREATED_AT} for line in lines]
        return "".join(f"id: {n}\ndata: {json.dumps(event)}\n\n" for n, event in enumerate(events))

    def _run(self, pod: Pod) -> None:
        """The pod's container: the script, again and again."""
        folder = self._folder / pod.id
        pod.log = folder / "log"
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        platform = {"RUNPOD_POD_ID": pod.id, "RUNPOD_API_KEY": pod.key, "RUNPOD_API": self.url}
        assert pod.fields["args"].endswith("training/pod/run.sh"), pod.fields["args"]
        while pod.status == "RUNNING" and pod.gone_at is None:
            disk = folder / str(pod.starts)
            disk.mkdir(parents=True)
            with pod.log.open("ab") as log, self._lock:
                if pod.status != "RUNNING" or pod.gone_at is not None:
                    return
                pod.starts += 1
                pod.process = subprocess.Popen(
                    ["bash", str(SCRIPT)],
                    env={**inherited, **self.environment, **platform, **pod.fields.get("env", {})},
                    cwd=disk, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
            pod.process.wait()
            self._kill(pod)

    def _end(self, pod: Pod) -> None:
        with self._lock:
            if self.pods.pop(pod.id, None) is None:
                return
            pod.gone_at, pod.status = time.time(), "TERMINATED"
            self.past.append(pod)
            self._kill(pod)

    def _kill(self, pod: Pod) -> None:
        if pod.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pod.process.pid, signal.SIGKILL)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, platform: Platform) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.platform = platform


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        authorization = self.headers.get("Authorization", "")
        status, found, headers = self.server.platform.answer(self.command, self.path, body, authorization)
        if status == LOST:
            self.close_connection = True
            return
        self.send_response(status)
        realm = f"http://{self.headers['Host']}/token"
        for name, value in {"WWW-Authenticate": f'Bearer realm="{realm}",service="registry"', **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if isinstance(found, str):
                self.wfile.write(found.encode())
            elif found is not None:
                self.wfile.write(json.dumps(found).encode())

    do_GET = do_PATCH = do_DELETE = do_POST  # noqa: N815 -- http.server's names

    def log_message(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def platform(folder: Path | None = None) -> Iterator[Platform]:
    """A platform for the block. Exchanges that do not conform fail the block's end."""
    made = Platform(folder)
    try:
        yield made
        assert made.problems == []
    finally:
        made.close()
