"""Ports that a server keeps over a restart, or that must be known before the start of a server.

A port that was free a moment ago may belong to another process now. A held port belongs to a socket of this process,
which is bound and never listens. On Linux a server with SO_REUSEADDR may bind the port beside the socket, and listen;
all other processes find the port in use.
"""

import socket
import sys
from typing import Self

LOOPBACK = "127.0.0.1"


class HeldPort:
    """A port of the loopback address for the servers of one test, until close()."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.bind((LOOPBACK, 0))
        # After bind(): before, the system might choose a port that another process holds in the same way.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.number: int = self._socket.getsockname()[1]
        self.address = f"{LOOPBACK}:{self.number}"
        if sys.platform != "linux":  # no second socket may bind there: the port is free, and not held
            self.close()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
