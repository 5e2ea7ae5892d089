"""What a transport is: a gRPC server for the contract's methods.

Owns the interface and the limits that all transports share. What a call means is calls/servicer.py's.
"""

from collections.abc import Callable
from typing import Protocol

import grpc

Register = Callable[[grpc.aio.Server], None]
"""Adds the services that stand beside the contract's: health, reflection."""

LIMITS = {
    # A peer that is gone is noticed.
    "keepalive_time_ms": 30_000,
    "keepalive_timeout_ms": 10_000,
    "max_concurrent_streams": 1024,
}
# Headers above the first size may be refused, above the second they are.
METADATA_BYTES = (16 * 1024, 32 * 1024)


class Transport(Protocol):
    """A server for the contract's methods."""

    def add_port(self, address: str) -> int:
        """Bind to "host:port"; returns the port. Raises RuntimeError or OSError."""
        ...

    async def start(self) -> None: ...

    async def stop(self, grace: float) -> None:
        """Take no more calls, wait `grace` seconds for those in flight, then cut them off."""
        ...
