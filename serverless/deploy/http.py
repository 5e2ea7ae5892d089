"""JSON over HTTP with retries.

Owns the list of transient statuses and the waiting times. Errors name the host and the status, never a header, because
a header holds the API key.
"""

import json
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 20.0


class RemoteError(RuntimeError):
    """The remote side refused; a retry would be refused too."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class TransientError(RemoteError):
    """A temporary failure; a retry may succeed."""


class Http:
    """An HTTP client for JSON APIs. `headers` are sent with each request."""

    def __init__(self, headers: Mapping[str, str], *, timeout: float = 30.0) -> None:
        self._headers = dict(headers)
        self._timeout = timeout

    def json(self, url: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """Send GET, or POST if there is a body, and parse the answer. Raises RemoteError."""
        return json.loads(self.exchange(url, body, headers)[1])

    def exchange(
        self, url: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[Mapping[str, str], bytes]:
        """Send one request without a retry; returns the answer's headers and bytes. Raises RemoteError."""
        host = urllib.parse.urlsplit(url).netloc
        if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
            raise RemoteError(f"not an HTTP address: {url}")
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 -- the scheme is checked above
            url, data, {"Content-Type": "application/json", **self._headers, **(headers or {})}
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:  # noqa: S310 -- as above
                return dict(response.headers), response.read()
        except urllib.error.HTTPError as error:
            with error:
                kind = TransientError if error.code in _TRANSIENT else RemoteError
                refusal = kind(f"{host} answered {error.code} {error.reason}", error.code)
                refusal.add_note(error.headers.get("WWW-Authenticate", ""))
            raise refusal from None
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            raise TransientError(f"{host} cannot be reached: {getattr(error, 'reason', error)}") from None


def retried(
    step: Callable[[], T],
    *,
    attempts: int = 5,
    uniform: Callable[[float, float], float] = random.uniform,
) -> T:
    """Run the step, with retries after TransientError and full jitter: up to 0.5, 1, 2, 4 ... seconds.

    A step with side effects must first read the remote state, because an earlier attempt may have succeeded although
    the answer was lost.
    Source: M. Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015.
    """
    for attempt in range(attempts - 1):
        try:
            return step()
        except TransientError:
            time.sleep(uniform(0.0, min(_LONGEST_WAIT, _FIRST_WAIT * 2.0**attempt)))
    return step()
