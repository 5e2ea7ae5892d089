"""A server on loopback that answers every request with the same bytes, as a hostile or broken API does."""

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.http_thread import running

Write = Callable[[bytes], object]


class Hostile(ThreadingHTTPServer):
    """`seen`: the headers of the requests. `body`: the bytes of an answer, or what writes the bytes until `over`.

    `tls`: certificate and key, for https.
    """

    daemon_threads = True

    def __init__(
        self, body: bytes | Callable[[Write], None], status: int, headers: dict[str, str], tls: dict[str, Path] | None
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.body, self.status, self.headers = body, status, headers
        self.seen: list[dict[str, str]] = []
        self.over = threading.Event()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.server_port}"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls["certificate"], tls["key"])
            self.socket = context.wrap_socket(self.socket, server_side=True)


class _Handler(BaseHTTPRequestHandler):
    server: Hostile

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append({name.lower(): value for name, value in self.headers.items()})
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            if isinstance(self.server.body, bytes):
                self.wfile.write(self.server.body)
            else:
                self.server.body(self.wfile.write)
        except ConnectionError:
            return

    do_POST = do_DELETE = do_GET  # noqa: N815 -- the library's names

    def log_message(self, *args: object) -> None:
        """Nothing."""


@contextmanager
def answering(
    body: bytes | Callable[[Write], None],
    status: int = 200,
    headers: dict[str, str] | None = None,
    tls: dict[str, Path] | None = None,
) -> Iterator[Hostile]:
    with running(Hostile(body, status, headers or {}, tls)) as server:
        try:
            yield server
        finally:
            server.over.set()


UNKNOWN_FORMS = {
    "empty": b"",
    "null": b"null",
    "object": b"{}",
    "list": b"[]",
    "number": b"5",
    "nested": b"[" * 200_000,
    "bytes": b"\xff\xfe",
    "names": b'{"pods": [{"id": 1, "name": 2, "status": 3, "cost": 4}], "items": [{"metadata": {"name": 5}}]}',
}
