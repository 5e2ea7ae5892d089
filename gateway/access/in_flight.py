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
        # By client, in the order of their turns: what waits until the client is not crowded.
        self._waiting: dict[str, dict[asyncio.Event, None]] = {}
        # By client: what waits for the client's next leave().
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
        """As enter(), after a wait while a limit is full and the client has something in flight.

        Raises OverloadedError where nothing of the client is in flight: the wait might have no end.
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
                self._pass_on(client)  # there may be room for the next one, too
                return
            await self._next_leave(client, first=waited)
            waited = True

    @property
    def clients(self) -> int:
        """The clients with something in flight."""
        return len(self._clients)

    def crowded(self, client: str) -> bool:
        """Whether the client has more than half of the limit; senders without haste should wait."""
        return 2 * self._clients.get(client, 0) > self._most_per_client

    async def room(self, client: str) -> None:
        """Wait while the client is crowded."""
        while self.crowded(client):
            await self.wait(client, asyncio.Event())

    async def wait(self, client: str, event: asyncio.Event) -> None:
        """Of a crowded client: wait for an event, which is set, too, when the client is no longer crowded."""
        waiting = self._waiting.setdefault(client, {})
        waiting[event] = None
        try:
            await event.wait()
        finally:
            waiting.pop(event, None)
            if not waiting and self._waiting.get(client) is waiting:
                del self._waiting[client]

    def _wake(self, client: str) -> None:
        """Wake one; after what this one has taken the next: thousands may wait, and most would have to wait again."""
        waiting = self._waiting.get(client)
        if waiting and not self.crowded(client):
            event = next(iter(waiting))
            del waiting[event]
            event.set()
            asyncio.get_running_loop().call_soon(self._wake, client)

    async def _next_leave(self, client: str, *, first: bool) -> None:
        """Wait for a leave() of the client behind the others that wait, or before them."""
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
        """Wake the first that waits for a leave(); what it takes, or gives back, wakes the next one."""
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
