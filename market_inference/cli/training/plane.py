"""The training plane as a client calls it: JSON and files over HTTP, standard library only.

Owns the calls and the event stream. The bytes of files are those of files.py, the bounds of an answer those of
exchange.py. How results are shown is the commands'.
"""

import hashlib
import http.client
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode
from urllib.request import Request

from market_inference.cli.training import exchange, files
from market_inference.cli.training.exchange import PlaneError as PlaneError
from market_inference.contract.state import development_key_file

URL = "http://127.0.0.1:8475"
_POLL_SECONDS: Final = 0.2
_STREAM_SECONDS: Final = 24 * 3600.0
"""An event stream ends after a day, and is taken up again."""
_MOST_LINE: Final = 1 << 20
"""The most bytes of a line of an event stream."""


class Plane:
    """One plane. The key of this machine is used by itself for a plane on loopback."""

    def __init__(self, url: str = URL, key: str = "") -> None:
        """Raises PlaneError for an address that is not of HTTP."""
        if not exchange.is_http(url):
            raise PlaneError(f"not an HTTP address: {url}")
        self.url = url.rstrip("/")
        self._key = key or _key_of(self.url)

    def json(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """The answer of /api/training{path}. Raises PlaneError."""
        data = None if body is None else json.dumps(body).encode()
        content = self.exchange(method, path, data, {"Content-Type": "application/json", **(headers or {})})
        return exchange.parsed(content) if content else None

    def exchange(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> bytes:
        """The bytes of the answer. Raises PlaneError."""
        return exchange.content(self._request(method, path, body, headers))

    def settled(self, path: str, *passing: str, seconds: float) -> Any:
        """The resource once its state is none of `passing`; after `seconds`, as the resource is. Raises PlaneError."""
        end = time.monotonic() + seconds
        while (found := self.json("GET", path))["state"] in passing and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
        return found

    def upload(self, file: Path, kind: str, name: str = "") -> str:
        """Declare, upload and complete a dataset; the id. The checks go on after this. Raises PlaneError, OSError."""
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        size = file.stat().st_size
        declared = {"name": name or file.name, "kind": kind, "bytes": size, "sha256": digest}
        made = self.json("POST", "/datasets", declared)
        etags = []
        if "upload" in made:
            files.put(made["upload"], self.url, file, 0, size)
        else:
            etags = self._upload_parts(made, file, size)
        self.json("POST", f"/datasets/{made['id']}/complete", {"etags": etags})
        return str(made["id"])

    def _upload_parts(self, made: Any, file: Path, size: int) -> list[str]:
        """Each part is signed when its turn comes. The ETags, in order."""
        each = made["parts"]["bytes"]
        etags = []
        for number in range(1, made["parts"]["count"] + 1):
            signed = self.json("POST", f"/datasets/{made['id']}/parts/{number}")
            start = each * (number - 1)
            etags.append(files.put(signed, self.url, file, start, min(each, size - start)))
        return etags

    def dataset_kind(self, recipe: bytes) -> str:
        """The kind of dataset that a recipe needs. Raises PlaneError for a bad recipe."""
        found = json.loads(self.exchange("POST", "/recipes", recipe, {"Content-Type": "application/yaml"}))
        return str(found["dataset"])

    def run(self, recipe: bytes, dataset: str, idempotency_key: str = "", *, dry_run: bool = False) -> Any:
        """Make a job of a recipe, YAML or JSON. Raises PlaneError."""
        query = urlencode({"dataset": dataset, **({"dry_run": "true"} if dry_run else {})})
        headers = {"Content-Type": "application/yaml"}
        if idempotency_key:
            headers["Idempotency-Key"] = idempotency_key
        return exchange.parsed(self.exchange("POST", f"/jobs?{query}", recipe, headers))

    def follow(self, job: str, after: int = 0) -> Iterator[tuple[str, Any]]:
        """Name and data of each event, until the job is final. Raises PlaneError when the stream breaks."""
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        request = self._request("GET", f"/jobs/{quote(job)}/events", None, headers)
        with exchange.opened(request, seconds=_STREAM_SECONDS) as answer:
            yield from _events(answer)

    def download(self, artifact: Mapping[str, Any], folder: Path) -> Path:
        """Fetch one artifact by its address into the folder, verified by size and digest. Raises PlaneError, OSError.

        After a failure the file of before is there, as it was.
        """
        answer = self.json("POST", "/artifacts/urls", {"ids": [artifact["id"]]})
        found = answer.get("artifacts") if isinstance(answer, dict) else None
        if not isinstance(found, list) or len(found) != 1:
            raise PlaneError("artifacts: the training plane answered no single address")
        return files.fetch(found[0], self.url, artifact, folder)

    def _request(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Request:
        request = Request(  # noqa: S310 -- checked when the plane is made
            f"{self.url}/api/training{path}", body, dict(headers), method=method
        )
        if self._key:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        return request


def _events(lines: http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
    """Server-Sent Events as WHATWG defines them, with the fields that the plane sends. Raises PlaneError, OSError."""
    kind, data = "", ""
    while raw := lines.readline(_MOST_LINE + 1):
        if len(raw) > _MOST_LINE:
            raise PlaneError(f"the event stream has a line of more than {_MOST_LINE} bytes")
        line = raw.decode(errors="replace").rstrip("\n")
        if not line and data:
            yield kind, exchange.parsed(data.encode())
            kind, data = "", ""
        elif line.startswith("event: "):
            kind = line[7:]
        elif line.startswith("data: "):
            data = line[6:]


def _key_of(url: str) -> str:
    """The key of the environment, else this machine's own for a plane on loopback."""
    if key := os.environ.get("MARKET_INFERENCE_API_KEY", ""):
        return key
    file = development_key_file()
    return file.read_text(encoding="utf-8").strip() if exchange.is_loopback(url) and file.exists() else ""
