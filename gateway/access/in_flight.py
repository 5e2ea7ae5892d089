"""Limits of requests in flight: of one client, and of all clients together.

Owns the counts. Limits of a request's size are the contract's.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from market_inference.contract.errors import OverloadedError


class InFlight:
    """Counts requests in flight, or streams, or sessions (`what`); one above a limit is refused at once."""

    def __init__(self, *, most: int, most_per_client: int, what: str = "requests") -> None:
        self._what = what
        self._most = most
        self._most_per_client = most_per_client
        self._clients: dict[str, int] = {}
        self.total = 0

    def enter(self, client: str) -> None:
        """Take a place; leave() gives it back. Raises OverloadedError."""
        if self.total >= self._most:
            raise OverloadedError(f"too many {self._what} in flight (max {self._most})", retry_after=0.1)
        held = self._clients.get(client, 0)
        if held >= self._most_per_client:
            raise OverloadedError(
                f"too many {self._what} of this client in flight (max {self._most_per_client})", retry_after=0.1
            )
        self._clients[client] = held + 1
        self.total += 1

    def leave(self, client: str) -> None:
        self.total -= 1
        held = self._clients[client] - 1
        if held:
            self._clients[client] = held
        else:
            del self._clients[client]

    @contextmanager
    def slot(self, client: str) -> Iterator[None]:
        """Hold a place for the time of a block. Raises OverloadedError."""
        self.enter(client)
        try:
            yield
        finally:
            self.leave(client)
