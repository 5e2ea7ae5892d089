"""HTTP requests to a training plane and its store: bounded in bytes and time, with typed errors.

Owns PlaneError and the bounds of an answer. Paths and keys are the plane's (plane.py), the bytes of files those of
files.py.
"""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from market_inference.contract import bounded

MOST_BYTES: Final = 32 << 20
"""The most bytes of an answer that is no file: a list of jobs and a log are smaller."""
SECONDS: Final = 60.0
_MOST_DETAILS: Final = 10
_LOOPBACK: Final = {"127.0.0.1", "localhost", "::1"}


class PlaneError(Exception):
    """The plane refused, does not answer, or its answer has another form. `status` is 0 without a refusal."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@contextmanager
def opened(
    request: urllib.request.Request, *, seconds: float = SECONDS, silent_seconds: float = SECONDS
) -> Iterator[http.client.HTTPResponse]:
    """The answer to a request, open for at most `seconds`, with `silent_seconds` for a single read. Raises PlaneError.

    Inside the block, an OSError is a failure of the connection.
    """
    host = urlsplit(request.full_url).netloc
    silent, direct = min(seconds, silent_seconds), is_loopback(request.full_url)
    rules = bounded.Redirects()
    answered = False
    try:
        with bounded.opened(request, seconds=seconds, redirects=rules, silent_seconds=silent, direct=direct) as answer:
            if isinstance(answer, urllib.error.HTTPError):
                raise PlaneError(_detail(answer) or f"{host} answered HTTP {answer.code}", answer.code)
            answered = True
            yield answer
    except bounded.ExpiredError as error:
        raise PlaneError(f"{host}: {error}") from None
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "reason", error)
        failed = f"the answer of {host} broke off" if answered else f"no training plane answers at {host}"
        raise PlaneError(f"{failed}: {why}") from None


def content(request: urllib.request.Request) -> bytes:
    """The bytes of an answer, at most MOST_BYTES. Raises PlaneError."""
    with opened(request) as answer:
        found = bounded.content(answer, MOST_BYTES)
    if len(found) > MOST_BYTES:
        raise PlaneError(f"{urlsplit(request.full_url).netloc} answered more than {MOST_BYTES} bytes")
    return found


def parsed(text: bytes) -> Any:
    """The JSON document of an answer. Raises PlaneError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise PlaneError("the training plane answered without JSON") from None


def is_http(url: str, schemes: Container[str] = ("http", "https")) -> bool:
    """Whether the text is the address of a server under one of the schemes."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in schemes and bool(parts.hostname)


def is_loopback(url: str) -> bool:
    """Whether the address names this machine."""
    return urlsplit(url).hostname in _LOOPBACK


def _detail(refusal: urllib.error.HTTPError) -> str:
    """The explanation in a problem document (RFC 9457) with the fields; empty without such a document."""
    document = bounded.problem(refusal)
    errors = document.get("errors")
    fields = [one for one in errors if isinstance(one, dict)] if isinstance(errors, list) else []
    lines = [f"{one.get('field', '')}: {one.get('description', '')}" for one in fields[1:_MOST_DETAILS]]
    return "\n  ".join([str(document.get("detail", "")), *lines])
