"""The interface of a transport, that is, of a gRPC server for the public RPCs.

Owns the interface and the limits that all transports share. The handlers behind a transport are calls/servicer.py's.
"""

from collections.abc import Callable
from typing import Protocol

import grpc

Register = Callable[[grpc.aio.Server], None]
"""Adds the services beside the public one, health and reflection, to one of the servers of a transport."""

LIMITS = {
    # Connections without a living client are found and closed.
    "keepalive_time_ms": 30_000,
    "keepalive_timeout_ms": 10_000,
    # Calls on one connection at a time; further calls wait in the client. 100 is the least that HTTP/2 recommends. gRPC
    # hands calls over one after the other: a call of another client waits behind all those that connections in the same
    # queue (grpcio.py) may open without a key or a request.
    "max_concurrent_streams": 100,
}
# Metadata above the first size may be refused; metadata above the second size are refused.
METADATA_BYTES = (16 * 1024, 32 * 1024)


class Transport(Protocol):
    """A server for the public RPCs."""

    def add_port(self, address: str) -> int:
        """Bind to "host:port"; returns the port. Raises RuntimeError or OSError."""
        ...

    async def start(self) -> None: ...

    async def stop(self, grace: float) -> None:
        """Take no more calls, wait at most `grace` seconds for the calls in flight, then cancel them."""
        ...
