"""A port of loopback where no connection is accepted or refused."""

import contextlib
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    with contextlib.ExitStack() as sockets:
        server = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # until the queue of the listening socket is full
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield server.getsockname()[1]
