"""Turns of the clients at the event loop: a client with many requests at once delays nobody else's.

Owns the order in which requests begin. A request costs the loop a millisecond before it waits for the gateway, or is
refused; without turns, all other requests and answers would wait until every request that has come is begun.
"""

import asyncio
from collections import OrderedDict, deque


class Turns:
    """A queue of waiting requests for each client. One request begins in a turn of the event loop."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._taken = False

    def take(self, client: str) -> asyncio.Future[None] | None:
        """None when the client's request may begin at once, else a future that is done when the request may begin.

        A request whose future is cancelled loses its turn.
        """
        loop = asyncio.get_running_loop()
        if not self._taken:
            self._taken = True
            loop.call_soon(self._next)
            return None
        begins = loop.create_future()
        self._queues.setdefault(client, deque()).append(begins)
        return begins

    def _next(self) -> None:
        """Begin a request of the client whose turn it is."""
        while self._queues:
            client, queue = next(iter(self._queues.items()))
            begins = queue.popleft()
            if queue:
                self._queues.move_to_end(client)
            else:
                del self._queues[client]
            if not begins.cancelled():
                begins.set_result(None)
                asyncio.get_running_loop().call_soon(self._next)
                return
        self._taken = False
