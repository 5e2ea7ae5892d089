"""Fetching a small document from a web server, bounded in time and in bytes as a whole.

Owns the bound on the whole time: urllib's timeout bounds a single read, so a server that sends a byte a second would
hold the fetch forever. The connection is shut down when the time is over, wherever the fetch waits.
"""

import contextlib
import http.client
import os
import socket
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Any


class FetchError(Exception):
    """The document cannot be fetched within the bounds."""


def fetch(url: str, *, seconds: float, most_bytes: int) -> bytes:
    """The document at an http or https URL. Blocks for at most `seconds` beside the DNS query. Raises FetchError."""
    connection = _Connection()
    opener = urllib.request.build_opener(_Http(connection), _Https(connection), _Redirects)
    with _within(seconds, connection) as expired:
        try:
            with opener.open(url, timeout=seconds) as answer:
                content: bytes = answer.read(most_bytes + 1)
        except Exception as error:  # whatever a server may send
            if expired:
                raise FetchError(f"no answer within {seconds:g} s") from error
            raise FetchError(f"{type(error).__name__}: {error}") from error
    if expired:
        raise FetchError(f"no answer within {seconds:g} s")
    if len(content) > most_bytes:
        raise FetchError(f"too large (max {most_bytes} bytes)")
    return content


@contextmanager
def _within(seconds: float, connection: "_Connection") -> Iterator[list[bool]]:
    """Shut the connection down after `seconds`; the list is not empty from then on."""
    expired: list[bool] = []

    def expire() -> None:
        expired.append(True)
        connection.shut_down()

    timer = Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield expired
    finally:
        timer.cancel()
        connection.close()


class _Connection:
    """Duplicates of the sockets of a fetch, since TLS takes the original over."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        self._shut = False

    def create(self, *args: Any, **kwargs: Any) -> socket.socket:
        made = socket.create_connection(*args, **kwargs)
        self._sockets.append(socket.socket(fileno=os.dup(made.fileno())))
        if self._shut:
            self.shut_down()
        return made

    def shut_down(self) -> None:
        self._shut = True
        for duplicate in self._sockets:
            with contextlib.suppress(OSError):
                duplicate.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for duplicate in self._sockets:
            duplicate.close()


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect from https to https only."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.type == "https" and not newurl.lower().startswith("https:"):
            raise FetchError("redirected from https to another scheme")
        fp.close()  # urllib would read the whole body of the redirect, however long
        return super().redirect_request(req, fp, code, msg, headers, newurl)


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
    def __init__(self, connection: _Connection) -> None:
        super().__init__(context=ssl.create_default_context())
        self._connection = connection

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._made, req)

    def _made(self, host: str, **options: Any) -> http.client.HTTPSConnection:
        made = http.client.HTTPSConnection(host, context=ssl.create_default_context(), **options)
        made._create_connection = self._connection.create  # type: ignore[attr-defined]
        return made
