"""Turns of the clients at the event loop: many requests of one client at once delay no requests of other clients.

Owns the order of the beginnings. A request costs the loop a millisecond before the call to the gateway or the refusal.
Without turns, all other requests and answers would wait for the beginning of every request that has come.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from runtime.round_robin import RoundRobin


class Turns:
    """One request begins in a turn of the event loop, or in every second, third, ... one; the clients take turns."""

    def __init__(self, every: int = 1) -> None:
        self._waiting: RoundRobin[asyncio.Future[None]] = RoundRobin()
        self._every = every
        # Turns of the loop until the next beginning, 0 while a request may begin at once.
        self._left = 0

    def take(self, client: str) -> asyncio.Future[None] | None:
        """None when the client's request may begin at once, else a future that is done when the request may begin.

        A request whose future is cancelled loses its turn.
        """
        loop = asyncio.get_running_loop()
        if not self._left:
            self._left = self._every
            loop.call_soon(self._next)
            return None
        begins = loop.create_future()
        self._waiting.add(client, begins)
        return begins

    async def begin(self, client: str, state: Mapping[str, Any]) -> bool:
        """Return when the client's request may begin; False when the client has left before.

        `state`: of the request's scope, with what runtime/http_connection.py has added.
        """
        begins = self.take(client)
        if begins is None:
            return True
        state["cancel_when_lost"](begins)
        try:
            await begins
        except asyncio.CancelledError:
            if begins.cancelled() and not cast("asyncio.Task[Any]", asyncio.current_task()).cancelling():
                return False
            raise
        return True

    def _next(self) -> None:
        """Begin a request of the next client, if the turn has come."""
        self._left -= 1
        while self._waiting and not self._left:
            begins = self._waiting.pop()
            if not begins.cancelled():
                begins.set_result(None)
                self._left = self._every
        if self._left:
            asyncio.get_running_loop().call_soon(self._next)
