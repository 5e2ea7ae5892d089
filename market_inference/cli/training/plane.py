"""The training plane as a client calls it: JSON and files over HTTP, standard library only.

Owns the calls, the uploads and the event stream. How results are shown is the commands'.
"""

import hashlib
import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from market_inference.contract.state import development_key_file

URL = "http://127.0.0.1:8475"
_TIMEOUT = 60.0
_UPLOAD_TIMEOUT = 3600.0
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class PlaneError(Exception):
    """The plane refused, or does not answer. `status` is 0 when it does not answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Plane:
    """One plane. The key of this machine is used by itself for a plane on loopback."""

    def __init__(self, url: str = URL, key: str = "") -> None:
        self.url = url.rstrip("/")
        self._key = key or _key_of(self.url)

    def json(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """The answer of /api/training{path}. Raises PlaneError."""
        data = None if body is None else json.dumps(body).encode()
        content = self.exchange(method, path, data, {"Content-Type": "application/json", **(headers or {})})
        return json.loads(content) if content else None

    def exchange(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> bytes:
        """The bytes of the answer. Raises PlaneError."""
        try:
            with self._open(method, path, body, headers) as answer:
                found: bytes = answer.read()
                return found
        except (OSError, http.client.HTTPException) as error:
            raise PlaneError(f"the answer broke off: {error}") from None

    def upload(self, file: Path, kind: str, name: str = "") -> str:
        """Declare, upload and complete a dataset; the id. The checks go on after this. Raises PlaneError, OSError."""
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        size = file.stat().st_size
        declared = {"name": name or file.name, "kind": kind, "bytes": size, "sha256": digest}
        made = self.json("POST", "/datasets", declared)
        etags = []
        if "upload" in made:
            _put(made["upload"], file, 0, size)
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
            etags.append(_put(signed, file, start, min(each, size - start)))
        return etags

    def run(self, recipe: bytes, dataset: str, idempotency_key: str = "", *, dry_run: bool = False) -> Any:
        """Make a job of a recipe, YAML or JSON. Raises PlaneError."""
        query = urlencode({"dataset": dataset, **({"dry_run": "true"} if dry_run else {})})
        headers = {"Content-Type": "application/yaml"}
        if idempotency_key:
            headers["Idempotency-Key"] = idempotency_key
        return json.loads(self.exchange("POST", f"/jobs?{query}", recipe, headers))

    def follow(self, job: str, after: int = 0) -> Iterator[tuple[str, Any]]:
        """Name and data of each event, until the job is final. Raises PlaneError when the stream breaks."""
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        try:
            with self._open("GET", f"/jobs/{quote(job)}/events", None, headers) as lines:
                yield from _events(lines)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise PlaneError(f"the event stream broke off: {error}") from None

    def download(self, artifact: Mapping[str, Any], folder: Path) -> Path:
        """Fetch one artifact by its address into the folder, verified by its digest. Raises PlaneError, OSError."""
        [signed] = self.json("POST", "/artifacts/urls", {"ids": [artifact["id"]]})["artifacts"]
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / Path(str(artifact["name"])).name
        digest = hashlib.sha256()
        with _open(urllib.request.Request(signed["url"])) as content, file.open("wb") as out:  # noqa: S310
            while chunk := content.read(1 << 20):
                digest.update(chunk)
                out.write(chunk)
        if digest.hexdigest() != artifact["sha256"]:
            file.unlink()
            raise PlaneError(f"{file.name}: the bytes are not the ones that were made")
        return file

    def _open(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Any:
        if urlsplit(self.url).scheme not in {"http", "https"}:
            raise PlaneError(f"not an HTTP address: {self.url}")
        request = urllib.request.Request(  # noqa: S310 -- checked above
            f"{self.url}/api/training{path}", body, dict(headers), method=method
        )
        if self._key:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        return _open(request)


def _put(signed: Mapping[str, Any], file: Path, start: int, size: int) -> str:
    """Upload a part of the file to a signed address; the ETag."""
    with file.open("rb") as content:
        content.seek(start)
        headers = {**signed["headers"], "Content-Length": str(size)}
        request = urllib.request.Request(signed["url"], _Part(content, size), headers, method="PUT")  # noqa: S310
        with _open(request, _UPLOAD_TIMEOUT) as answer:
            return str(answer.headers.get("ETag", ""))


class _Part:
    """So many bytes of an open file, for urllib to read."""

    def __init__(self, content: Any, size: int) -> None:
        self._content = content
        self._left = size

    def read(self, most: int = -1) -> bytes:
        found: bytes = self._content.read(self._left if most < 0 else min(most, self._left))
        self._left -= len(found)
        return found


def _open(request: urllib.request.Request, timeout: float = _TIMEOUT) -> Any:
    opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if _is_loopback(request.full_url) else []))
    try:
        return opener.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            raise PlaneError(_detail(error.read(65_536)) or f"HTTP {error.code}", error.code) from None
    except (OSError, http.client.HTTPException) as error:
        host = urlsplit(request.full_url).netloc
        why = getattr(error, "reason", error)
        raise PlaneError(f"no training plane answers at {host}: {why}") from None


def _detail(content: bytes) -> str:
    try:
        document = json.loads(content)
    except ValueError:
        return ""
    lines = [f"{one.get('field', '')}: {one.get('description', '')}" for one in document.get("errors", [])[1:10]]
    return "\n  ".join([str(document.get("detail", "")), *lines])


def _events(lines: Any) -> Iterator[tuple[str, Any]]:
    """Server-Sent Events as WHATWG defines them, with the fields that the plane sends."""
    kind, data = "", ""
    for raw in lines:
        line = raw.decode().rstrip("\n")
        if not line and data:
            yield kind, json.loads(data)
            kind, data = "", ""
        elif line.startswith("event: "):
            kind = line[7:]
        elif line.startswith("data: "):
            data = line[6:]


def _is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in _LOOPBACK


def _key_of(url: str) -> str:
    """The key of the environment, else this machine's own for a plane on loopback."""
    if key := os.environ.get("MARKET_INFERENCE_API_KEY", ""):
        return key
    file = development_key_file()
    return file.read_text(encoding="utf-8").strip() if _is_loopback(url) and file.exists() else ""
