"""JSON over HTTP with retries.

Owns the list of transient statuses, the waiting times, and the bounds of an answer in bytes and time. Errors name the
host, the status and the server's own explanation, never a header of the request, because a header holds the API key: an
explanation that repeats the key has *** in the key's place. For the same reason no header follows a redirect to another
server.
"""

import http.client
import json
import random
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, NoReturn, TypeVar

from market_inference.contract import bounded

T = TypeVar("T")
LONGEST_WAIT_SECONDS: Final = 60.0
MOST_BYTES: Final = 32 << 20
"""The most bytes of an answer: an account's pods and a machine's log are smaller."""
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 20.0
_MOST_DETAIL_CHARACTERS = 500
_PLAIN = {"accept", "content-type"}
"""Headers without a secret: an explanation may repeat the values."""
_LEAST_SECRET = 6
"""Shorter words are no keys, and stand in texts by chance."""


class RemoteError(RuntimeError):
    """The remote side refused; a retry would be refused too. `status` is 0 without an answer."""

    def __init__(self, message: str, status: int = 0, *, detail: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.detail = detail
        self.retry_after = retry_after


class TransientError(RemoteError):
    """A temporary failure; a retry may succeed. A request with side effects may have been carried out."""


class Http:
    """An HTTP client for JSON APIs. `headers` are sent with each request; `authority`: a file of certificates."""

    def __init__(self, headers: Mapping[str, str], *, timeout: float = 30.0, authority: str = "") -> None:
        """Raises OSError for a file that is missing or holds no certificate."""
        self._headers = dict(headers)
        self._timeout = timeout
        self._context = ssl.create_default_context(cafile=authority or None)

    def json(
        self,
        url: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "",
        timeout: float | None = None,
    ) -> Any:
        """Send one request and parse the answer; None for an answer without content. Raises RemoteError."""
        content = self.exchange(url, body, headers, method=method, timeout=timeout)
        try:
            return json.loads(content, parse_constant=_refuse_constant) if content else None
        except (ValueError, RecursionError):
            raise TransientError(f"{urllib.parse.urlsplit(url).netloc} answered without JSON") from None

    def exchange(
        self,
        url: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "",
        timeout: float | None = None,
    ) -> bytes:
        """Send one request without a retry: `method`, else POST with a body and GET without one.

        `timeout`: seconds for the whole request, by default the client's. Returns the answer's bytes. Raises
        RemoteError.
        """
        seconds = self._timeout if timeout is None else timeout
        with self._open(url, body, headers, method, seconds, seconds) as response:
            content = bounded.content(response, MOST_BYTES)
            if len(content) > MOST_BYTES:
                raise TransientError(f"{urllib.parse.urlsplit(url).netloc} answered more than {MOST_BYTES} bytes")
            return content

    def tail(self, url: str, headers: Mapping[str, str], *, most: int, seconds: float) -> bytes:
        """The first `most` bytes of an answer without an end, read until no byte came for `seconds`.

        Raises RemoteError.
        """
        found = b""
        until = time.monotonic() + 10 * seconds
        whole = self._timeout + 10 * seconds
        with self._open(url, None, headers, "GET", whole, seconds) as response, suppress(TimeoutError):
            while len(found) < most and time.monotonic() < until and (more := response.read1(most - len(found))):
                found += more
        return found

    @contextmanager
    def _open(
        self, url: str, body: Any, headers: Mapping[str, str] | None, method: str, seconds: float, silent_seconds: float
    ) -> Iterator[http.client.HTTPResponse]:
        host = urllib.parse.urlsplit(url).netloc
        if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
            raise RemoteError(f"not an HTTP address: {url}")
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **self._headers, **(headers or {})}
        secrets = [value for name, value in sent.items() if name.lower() not in _PLAIN]
        request = urllib.request.Request(url, data, sent, method=method or None)  # noqa: S310 -- the scheme is checked
        try:
            with bounded.opened(
                request,
                seconds=seconds,
                redirects=_Redirects(),
                silent_seconds=silent_seconds,
                context=self._context,
            ) as response:
                if isinstance(response, urllib.error.HTTPError):
                    raise _refusal(host, response, secrets)
                yield response
        except (OSError, http.client.HTTPException) as error:
            raise TransientError(f"{host} cannot be reached: {getattr(error, 'reason', error)}") from None


class _Redirects(bounded.Redirects):
    """Follows redirects of a GET, to another server without our headers."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        before, after = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(newurl)
        if req.get_method() != "GET":
            return None
        made = super().redirect_request(req, fp, code, msg, headers, newurl)
        if made is not None and (before.scheme, before.netloc) != (after.scheme, after.netloc):
            made.headers.clear()
        return made


def _refuse_constant(name: str) -> NoReturn:
    """JSON has no NaN and no infinity; json.loads() takes both."""
    raise ValueError(name)


def _refusal(host: str, error: urllib.error.HTTPError, secrets: Iterable[str]) -> RemoteError:
    kind = TransientError if error.code in _TRANSIENT else RemoteError
    detail = _hidden(_detail(error), secrets)[:_MOST_DETAIL_CHARACTERS]
    reason = _hidden(str(error.reason), secrets)[:_MOST_DETAIL_CHARACTERS]
    text = f"{host} answered {error.code} {reason}" + (f": {detail}" if detail else "")
    refusal = kind(text, error.code, detail=detail, retry_after=_seconds(error.headers.get("Retry-After")))
    refusal.add_note(_hidden(error.headers.get("WWW-Authenticate", ""), secrets))
    return refusal


def _hidden(text: str, secrets: Iterable[str]) -> str:
    """The server's text without the secrets, nor their last words: `Bearer KEY` and `KEY`."""
    words = {word for secret in secrets for word in (secret, *secret.split()[-1:]) if len(word) >= _LEAST_SECRET}
    for word in sorted(words, key=len, reverse=True):
        text = text.replace(word, "***")
    return text


def _detail(error: urllib.error.HTTPError) -> str:
    """The explanation in a problem document (RFC 9457) with RunPod's `errors`; empty without such a document."""
    document = bounded.problem(error)
    errors = document.get("errors")
    found = [str(document.get("detail") or ""), *map(str, errors if isinstance(errors, list) else ())]
    return "; ".join(one for one in found if one)


def _seconds(header: str | None) -> float | None:
    """Retry-After in seconds; the form with a date is not used by the APIs called here."""
    return float(header) if header and header.isascii() and header.isdigit() else None


def retried(
    step: Callable[[], T],
    *,
    attempts: int = 5,
    uniform: Callable[[float, float], float] = random.uniform,
) -> T:
    """Run the step, with retries after TransientError: after the seconds in Retry-After, at most 60, else with full
    jitter up to 0.5, 1, 2, 4 ... seconds.

    A step with side effects must first read the remote state, because an earlier attempt may have succeeded although
    the answer was lost.
    Source: M. Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015.
    """
    for attempt in range(attempts - 1):
        try:
            return step()
        except TransientError as error:
            if error.retry_after is not None:
                time.sleep(min(LONGEST_WAIT_SECONDS, error.retry_after))
            else:
                time.sleep(uniform(0.0, min(_LONGEST_WAIT, _FIRST_WAIT * 2.0**attempt)))
    return step()
