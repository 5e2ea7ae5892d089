"""The plane as a pod calls it: JSON over HTTP with the job's own token, standard library only.

Owns the calls and their retries. The token goes into a header and into no text.
"""

import http.client
import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 20.0
_TIMEOUT = 60.0


class RefusedError(Exception):
    """The plane said no, and would say no again."""


class AwayError(Exception):
    """The plane or the object store does not answer, or asks for a pause of `retry_after` seconds."""

    retry_after = 0.0


@dataclass(frozen=True, slots=True)
class Plane:
    """The plane's address of this job."""

    url: str
    job: str
    token: str

    @classmethod
    def of_environment(cls) -> "Plane":
        """From PLANE_URL, JOB_ID and JOB_TOKEN. Raises KeyError."""
        return cls(os.environ["PLANE_URL"].rstrip("/"), os.environ["JOB_ID"], os.environ["JOB_TOKEN"])

    def post(self, path: str, body: Any, *, timeout: float = _TIMEOUT) -> Any:
        """One try of POST /api/training/jobs/{job}/{path}. Raises RefusedError, AwayError."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        url = f"{self.url}/api/training/jobs/{self.job}/{path}"
        content = _open(url, "POST", json.dumps(body).encode(), headers, timeout)
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise AwayError("the answer is no JSON object")
        return answer

    def insist(self, path: str, body: Any, seconds: float) -> Any:
        """As post(), again and again for so many seconds while the plane is away."""
        return insist(lambda: self.post(path, body), seconds)


def insist(step: Any, seconds: float) -> Any:
    """The step's result, trying again after AwayError with full jitter, for so many seconds.

    Raises AwayError, at once for a pause that ends later.
    """
    end, wait = time.monotonic() + seconds, _FIRST_WAIT
    while True:
        try:
            return step()
        except AwayError as error:
            if time.monotonic() + error.retry_after > end:
                raise
        time.sleep(random.uniform(0.0, wait))  # noqa: S311 -- jitter needs no secrecy
        wait = min(_LONGEST_WAIT, 2.0 * wait)


def put(url: str, file: Path, headers: Mapping[str, str]) -> None:
    """Upload a file to a signed address, once. Raises RefusedError, AwayError."""
    with file.open("rb") as content:
        _open(url, "PUT", content, {**headers, "Content-Length": str(file.stat().st_size)}, 3600.0)


def get(url: str) -> bytes:
    """The bytes at a signed address. Raises RefusedError, AwayError."""
    return _open(url, "GET", None, {}, 3600.0)


def _open(url: str, method: str, body: Any, headers: Mapping[str, str], timeout: float) -> bytes:
    request = urllib.request.Request(url, body, method=method)  # noqa: S310 -- the plane's own address
    for name, value in headers.items():
        request.add_unredirected_header(name, value)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310 -- as above
            found: bytes = answer.read()
            return found
    except urllib.error.HTTPError as error:
        with error:
            text = error.read(2000).decode(errors="replace")
        said = f"{method} answered {error.code}: {_detail(text)}"
        if error.code not in {408, 425, 429} and error.code < 500:
            raise RefusedError(said) from None
        away = AwayError(said)
        pause = error.headers.get("Retry-After", "")
        away.retry_after = float(pause) if pause.isdecimal() and len(pause) < 9 else 0.0
        raise away from None
    except (OSError, http.client.HTTPException) as error:
        raise AwayError(f"{method} failed: {getattr(error, 'reason', error)}") from None


def _detail(text: str) -> str:
    try:
        return str(json.loads(text)["detail"])
    except (ValueError, KeyError, TypeError):
        return text[:200]
