"""The HTTP server of a service: uvicorn under runtime/process.py, and its listening socket.

Owns the start and the socket. The application and the limits of requests belong to the service.
"""

import asyncio
import contextlib
import socket
import sys

import uvicorn

from runtime.listen import bind, split


class HttpServer(uvicorn.Server):
    """uvicorn without signal handlers (runtime/process.py handles the signals), and with an event for the start."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept requests."""
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


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
