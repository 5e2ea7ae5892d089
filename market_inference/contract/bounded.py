"""An HTTP request bounded in time as a whole, whatever the server does.

Owns the bound: urllib's timeout bounds a single read, so a server that sends a byte a second would hold the request
forever. The connection is shut down when the time is over, wherever the request waits.
"""

import contextlib
import http.client
import json
import os
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Timer
from typing import Any, Final

_MOST_PROBLEM_BYTES: Final = 64 << 10


class ExpiredError(OSError):
    """The time of a request is over."""


@contextmanager
def opened(
    request: urllib.request.Request,
    *,
    seconds: float,
    redirects: "Redirects",
    silent_seconds: float | None = None,
    context: ssl.SSLContext | None = None,
    direct: bool = False,
) -> Iterator[http.client.HTTPResponse | urllib.error.HTTPError]:
    """The answer to a request, an HTTPError for a status that is no success.

    Blocks for at most `seconds` beside the DNS query, reading included, and `silent_seconds` for a single read.
    `direct`: without the proxies of the environment. Raises ExpiredError, OSError, HTTPException.
    """
    until = time.monotonic() + seconds
    connection = _Connection(until)
    handlers = [_Http(connection), _Https(connection, context), redirects]
    if direct:
        handlers.append(urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)
    timer = Timer(seconds, connection.shut_down)
    timer.daemon = True
    timer.start()
    try:
        with closing(_answer(opener, request, silent_seconds or seconds)) as answer:
            yield answer
    except Exception as error:  # a connection that is shut down fails in many ways
        if time.monotonic() >= until:
            raise ExpiredError(f"no answer within {seconds:g} s") from error
        raise
    finally:
        timer.cancel()
        connection.close()
    if time.monotonic() >= until:
        raise ExpiredError(f"no answer within {seconds:g} s")


def _answer(
    opener: urllib.request.OpenerDirector, request: urllib.request.Request, timeout: float
) -> http.client.HTTPResponse | urllib.error.HTTPError:
    try:
        answer: http.client.HTTPResponse = opener.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        return error
    except ValueError as error:  # no address
        raise http.client.HTTPException(str(error)) from error
    return answer


def content(answer: http.client.HTTPResponse, most: int) -> bytes:
    """The answer's bytes, at most `most` and one. Raises IncompleteRead where the connection ended before."""
    found = answer.read(most + 1)
    if len(found) <= most and answer.length:  # read() with a number takes what has come for the whole
        raise http.client.IncompleteRead(found, answer.length)
    return found


def problem(refusal: urllib.error.HTTPError) -> dict[str, Any]:
    """The problem document (RFC 9457) of a refusal; empty without such a document."""
    try:
        document = json.loads(refusal.read(_MOST_PROBLEM_BYTES))
    except (OSError, ValueError, RecursionError, http.client.HTTPException):
        return {}
    return document if isinstance(document, dict) else {}


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https, and from http to http; urllib would take ftp, too.

    Any other redirect is an answer without success: the HTTPError of the redirect's status.
    """

    def http_error_302(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any) -> Any:
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except ValueError:  # no address
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urllib.parse.urlsplit(newurl).scheme not in {"https", req.type}:
            return None
        fp.close()  # urllib would read the whole body of the redirect, however long
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Connection:
    """Duplicates of the sockets of a request, since TLS takes the original over."""

    def __init__(self, until: float) -> None:
        self._until = until
        self._sockets: list[socket.socket] = []
        self._shut = False

    def create(self, address: tuple[str, int], timeout: float, _source: object = None) -> socket.socket:
        """A connection to the first of the host's addresses that answers; the addresses share the time that is left."""
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
        failure = OSError("the host has no address")
        for number, one in enumerate(found):
            left = (self._until - time.monotonic()) / (len(found) - number)
            try:
                made = _connected(one, min(timeout, max(left, 0.0)))
            except OSError as error:
                failure = error
            else:
                made.settimeout(timeout)
                self._sockets.append(socket.socket(fileno=os.dup(made.fileno())))
                if self._shut:
                    self.shut_down()
                return made
        raise failure

    def shut_down(self) -> None:
        self._shut = True
        for duplicate in self._sockets:
            with contextlib.suppress(OSError):
                duplicate.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for duplicate in self._sockets:
            duplicate.close()


def _connected(found: tuple[Any, ...], seconds: float) -> socket.socket:
    """A connection to an address of getaddrinfo(). Raises OSError."""
    family, kind, protocol, _, address = found
    made = socket.socket(family, kind, protocol)
    try:
        made.settimeout(seconds)
        made.connect(address)
    except OSError:
        made.close()
        raise
    return made


class _Http(urllib.request.HTTPHandler):
    def __init__(self, connection: _Connection) -> None:
        super().__init__()
        self._connection = connection

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._made, req)

    def _made(self, host: str, **options: Any) -> http.client.HTTPConnection:
        made = http.client.HTTPConnection(host, **options)
        made._create_connection = self._connection.create  # type: ignore[attr-defined]
        return made


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, connection: _Connection, context: ssl.SSLContext | None) -> None:
        # Not HTTPSHandler's: a context takes 20 ms, and most requests of this machine's services are plain HTTP.
        urllib.request.AbstractHTTPHandler.__init__(self)
        self._trusted = context
        self._connection = connection

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._made, req)

    def _made(self, host: str, **options: Any) -> http.client.HTTPSConnection:
        trusted = self._trusted or ssl.create_default_context()
        made = http.client.HTTPSConnection(host, context=trusted, **options)
        made._create_connection = self._connection.create  # type: ignore[attr-defined]
        return made
