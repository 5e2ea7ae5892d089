"""The HTTP server of a service: uvicorn under runtime/process.py, and its listening socket.

Owns the start and the socket. The application and the limits of requests belong to the service.
"""

import asyncio
import contextlib
import socket
import ssl
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

import uvicorn

from runtime.listen import bind, split
from runtime.tasks import Tasks

HANDSHAKE_SECONDS: Final = 10.0
"""The time for a TLS handshake."""


class HttpServer(uvicorn.Server):
    """uvicorn without signal handlers (runtime/process.py handles the signals), and with an event for the start.

    With `tls`, the limit of connections counts a connection before the handshake, too. Another context in its place is
    for new connections.
    """

    def __init__(self, config: uvicorn.Config, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(config)
        self.up = asyncio.Event()
        self.tls = tls
        self._handshakes = Tasks()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept requests."""
        if self.tls is not None:
            connection: Any = self.config.http_protocol_class
            secured: Any = partial(_secured, self, connection)
            self.config.http_protocol_class = secured
        await super().startup(sockets)
        self.up.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let requests end, and close all connections."""
        for handshake in self._handshakes:
            handshake.cancel()
        await super().shutdown(sockets)

    def shake(self, handshake: "_Handshake", transport: asyncio.Transport) -> None:
        """Begin the handshake of a new connection, or close the connection: above the limit, and in a drain."""
        most = self.config.limit_concurrency
        full = most is not None and len(self._handshakes) + len(self.server_state.connections) >= most
        if full or self.should_exit:
            transport.abort()
            return
        self._handshakes.spawn(handshake.run(transport))

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


def _secured(server: HttpServer, connection: Callable[..., asyncio.Protocol], **settings: Any) -> "_Handshake":
    return _Handshake(server, connection(**settings))


class _Handshake(asyncio.Protocol):
    """A connection until the end of its TLS handshake. Afterwards `connection` takes over."""

    def __init__(self, server: HttpServer, connection: asyncio.Protocol) -> None:
        self._server = server
        self._connection = connection
        # What comes with the end of the handshake.
        self._received: list[bytes] = []
        self._is_at_end = self._is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports derive from no class of asyncio.
        accepted = cast("asyncio.Transport", transport)
        accepted.pause_reading()
        self._server.shake(self, accepted)

    def data_received(self, data: bytes) -> None:
        self._received.append(data)

    def eof_received(self) -> None:
        self._is_at_end = True

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True

    async def run(self, transport: asyncio.Transport) -> None:
        """Shake hands. A failure closes the connection."""
        loop = asyncio.get_running_loop()
        if self._server.tls is None or transport.is_closing():
            return
        loop.call_soon(self._give_early, transport)
        try:
            secured = await loop.start_tls(
                transport, self, self._server.tls, server_side=True, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except OSError:
            return
        if secured is None or self._is_lost:
            return
        secured.set_protocol(self._connection)
        self._connection.connection_made(secured)
        for data in self._received:
            self._connection.data_received(data)
        if self._is_at_end:
            self._connection.eof_received()

    def _give_early(self, transport: asyncio.Transport) -> None:
        """Give the loop's TLS protocol what came before: uvloop reads after connection_made(), paused or not."""
        shaking = cast("asyncio.BufferedProtocol", transport.get_protocol())
        early, self._received = self._received, []
        for data in early:
            memoryview(shaking.get_buffer(len(data)))[: len(data)] = data
            shaking.buffer_updated(len(data))


def listening(address: str, *, backlog: int, reader_seconds: float | None = None) -> socket.socket:
    """A socket that listens at host:port. Raises CannotListenError.

    `reader_seconds`: on Linux, the kernel may end a connection when the peer has read nothing for this time, also
    after the answer.
    """
    made = socket.socket(socket.AF_INET6 if "[" in address else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    def listen(at: str) -> int:
        made.bind(split(at))
        if reader_seconds is not None and sys.platform == "linux":
            # Connections inherit the option. Twice the time: the limit of the service comes first.
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(2000 * reader_seconds))
        made.listen(backlog)
        return int(made.getsockname()[1])

    try:
        bind(listen, address)
    except BaseException:
        made.close()
        raise
    return made
