"""Many unary calls of one client beside calls of others: the calls beyond a number begin in turns.

Owns the counts of calls by client, and the turns. gRPC in Python hands over one call of a method in two turns of the
event loop. If every call began at once, the answers to hundreds of calls of one client, each followed by the client's
next call, would fill these turns, and the calls of others would wait in gRPC's queue behind hundreds. A call that waits
here has left that queue.
"""

import asyncio
from collections import Counter
from typing import Final

from market_inference.contract import deadline
from runtime.company import Company
from runtime.turns import Turns

MOST_CALLS: Final = 24
"""Calls of one client that begin at once, however many other clients call."""
TURNS: Final = 2
"""Turns of the event loop between two beginnings: gRPC hands calls over as fast as they begin."""


class Crowds:
    """The unary calls of one transport."""

    def __init__(self) -> None:
        self._calls: Counter[str] = Counter()
        self._company = Company()
        self._turns = Turns(TURNS)

    def enter(self, client: str) -> asyncio.Future[None] | None:
        """None when a call of the client may begin at once, else a future that is done when the call may begin.

        leave() follows when the call has ended.
        """
        now = deadline.now()
        self._calls[client] += 1
        self._company.note(client, now, others=len(self._calls) > 1)
        if self._calls[client] <= MOST_CALLS or now >= self._company.until:
            return None
        return self._turns.take(client)

    def leave(self, client: str) -> None:
        """A call of the client has ended, or has left before its beginning."""
        self._calls[client] -= 1
        if not self._calls[client]:
            del self._calls[client]
