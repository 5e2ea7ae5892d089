"""Limits of work in flight: of one client, and of all clients together.

Owns the counts: requests, streams, sessions, or bytes. Limits of a request's size are the contract's.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from market_inference.contract.errors import OverloadedError


class InFlight:
    """Counts requests in flight, or streams, sessions, bytes (`what`); an amount above a limit is refused at once."""

    def __init__(self, *, most: int, most_per_client: int, what: str = "requests", spared: int = 0) -> None:
        """The limit of all clients together refuses no client with at most `spared` in flight."""
        self._what = what
        self._spared = spared
        self._most = most
        self._most_per_client = most_per_client
        self._clients: dict[str, int] = {}
        # By client, in the order of the turns: events to set when the client is no longer crowded.
        self._waiting: dict[str, dict[asyncio.Event, None]] = {}
        # By client: futures for the client's next leave().
        self._leaving: dict[str, deque[asyncio.Future[None]]] = {}
        self.total = 0

    def enter(self, client: str, amount: int = 1) -> None:
        """Take places; leave() gives them back. Raises OverloadedError."""
        held = self._clients.get(client, 0)
        # An amount above a limit passes while nothing else is in flight: another limit allows the single request.
        if self.total and self.total + amount > self._most and held + amount > self._spared:
            raise OverloadedError(f"too many {self._what} in flight (max {self._most})", retry_after=0.1)
        if held and held + amount > self._most_per_client:
            raise OverloadedError(
                f"too many {self._what} of this client in flight (max {self._most_per_client})", retry_after=0.1
            )
        self._clients[client] = held + amount
        self.total += amount

    def leave(self, client: str, amount: int = 1) -> None:
        self.total -= amount
        # Absent after an amount of 0, such as the bytes of an empty request, beside which nothing is left.
        held = self._clients.get(client, 0) - amount
        if held:
            self._clients[client] = held
        else:
            self._clients.pop(client, None)
        if self._waiting:
            self._wake(client)
        if self._leaving:
            self._pass_on(client)

    async def enter_in_turn(self, client: str, amount: int) -> None:
        """As enter(), after a wait while a limit is full and the client has an amount in flight.

        Raises OverloadedError for a client without an amount in flight: the wait might have no end.
        """
        waited = False
        while True:
            try:
                self.enter(client, amount)
            except OverloadedError:
                if client not in self._clients:
                    self._pass_on(client)
                    raise
            else:
                self._pass_on(client)  # there may be room for another amount
                return
            await self._next_leave(client, first=waited)
            waited = True

    @property
    def clients(self) -> int:
        """The number of clients with an amount in flight."""
        return len(self._clients)

    def crowded(self, client: str) -> bool:
        """Whether the client has more than half of the limit; senders without haste should wait."""
        return 2 * self._clients.get(client, 0) > self._most_per_client

    async def room(self, client: str) -> None:
        """Wait while the client is crowded."""
        while self.crowded(client):
            await self.wait(client, asyncio.Event())

    async def wait(self, client: str, event: asyncio.Event) -> None:
        """Wait for an event of a crowded client. The end of the crowd sets the event, too."""
        waiting = self._waiting.setdefault(client, {})
        waiting[event] = None
        try:
            await event.wait()
        finally:
            waiting.pop(event, None)
            if not waiting and self._waiting.get(client) is waiting:
                del self._waiting[client]

    def _wake(self, client: str) -> None:
        """Set the first event, and the next event in a later turn of the loop: the first waiter may crowd the client.

        Thousands may wait, and most would have to wait again.
        """
        waiting = self._waiting.get(client)
        if waiting and not self.crowded(client):
            event = next(iter(waiting))
            del waiting[event]
            event.set()
            asyncio.get_running_loop().call_soon(self._wake, client)

    async def _next_leave(self, client: str, *, first: bool) -> None:
        """Wait for a leave() of the client, behind the other waiters or, with `first`, before all."""
        left = asyncio.get_running_loop().create_future()
        queue = self._leaving.setdefault(client, deque())
        queue.appendleft(left) if first else queue.append(left)
        try:
            await left
        except asyncio.CancelledError:
            if not left.cancelled():
                self._pass_on(client)
            elif left in queue:
                queue.remove(left)
                if not queue:
                    del self._leaving[client]
            raise

    def _pass_on(self, client: str) -> None:
        """Wake the first waiter for a leave(). The enter() or leave() of the waiter wakes the next waiter."""
        queue = self._leaving.get(client)
        while queue:
            left = queue.popleft()
            if not queue:
                del self._leaving[client]
            if not left.done():
                left.set_result(None)
                return

    @contextmanager
    def slot(self, client: str) -> Iterator[None]:
        """Hold a place for the time of a block. Raises OverloadedError."""
        self.enter(client)
        try:
            yield
        finally:
            self.leave(client)
