"""A Kubernetes API server on loopback for Jobs and pods: manifests are validated strictly, names are unique."""

import json
import re
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import kubernetes_validate


class Cluster(ThreadingHTTPServer):
    """`jobs` by name. `refuse`: statuses and messages of the next answers; 0 carries out and does not answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.jobs: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.refuse: list[tuple[int, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self.shutdown()
        self._thread.join(60)
        self.server_close()

    def answer(self, method: str, target: str, body: Any) -> tuple[int, Any]:
        split = urllib.parse.urlsplit(target)
        selector = dict(urllib.parse.parse_qsl(split.query)).get("labelSelector", "")
        self.calls.append(f"{method} {split.path}")
        if split.path.startswith("/api/v1/namespaces/train/pods"):
            return self._pods(method, split.path, selector)
        name = re.fullmatch(r"/apis/batch/v1/namespaces/train/jobs/?([^/]*)", split.path)[1]
        if method == "POST":
            return self._make(body)
        if not name:
            key, _, value = selector.partition("=")
            return 200, {"items": [job for job in self.jobs.values() if job["metadata"]["labels"].get(key) == value]}
        if name not in self.jobs:
            return 404, {"message": f"jobs {name!r} not found"}
        return 200, self.jobs.pop(name) if method == "DELETE" else self.jobs[name]

    def _make(self, body: Any) -> tuple[int, Any]:
        kubernetes_validate.validate(body, "1.37", strict=True)
        if body["metadata"]["name"] in self.jobs:
            return 409, {"message": "already exists"}
        self.jobs[body["metadata"]["name"]] = {**body, "status": {}}
        return 201, body

    def _pods(self, method: str, path: str, selector: str) -> tuple[int, Any]:
        if path.endswith("/log"):
            return 200, "one\ntwo\n"
        name = selector.removeprefix("job-name=")
        return 200, {"items": [{"metadata": {"name": f"{name}-abcde"}}] if name in self.jobs else []}


class _Handler(BaseHTTPRequestHandler):
    server: Cluster

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        refused = self.server.refuse.pop(0) if self.server.refuse else None
        if refused is not None and refused[0]:
            status, found = refused[0], {"detail": refused[1]}
        else:
            status, found = self.server.answer(self.command, self.path, body)
        if refused is not None and not refused[0]:
            self.close_connection = True
            return
        assert self.headers["Authorization"] == "Bearer service-account"
        self.send_response(status)
        self.end_headers()
        self.wfile.write(found.encode() if isinstance(found, str) else json.dumps(found).encode())

    do_GET = do_DELETE = do_POST  # noqa: N815 -- http.server's names

    def log_message(self, *args: object) -> None:
        pass
