"""The event loop's time for the requests of Stream calls: one slice in a turn of the loop, shared by all streams.

Owns the order: clients take turns, and so do the streams of a client. If every stream took a slice in every turn, a
unary call of another client, which needs several turns, would wait for all streams several times. Beside calls of other
clients a slice is shorter; alone, a longer slice lets more calls share a request.
"""

import asyncio
from collections.abc import Callable

from market_inference.contract import deadline
from runtime.round_robin import RoundRobin

TURN_SECONDS = 0.002
"""The time for the requests of all streams in one turn of the event loop."""
COMPANY_SHARE = 0.25
"""The part of it while several clients have calls in flight."""
MOST_TURNS = 16
"""The most turns without a slice, after a slice beyond its end: the process may have stood still meanwhile."""


class Slices:
    """The slices of one event loop. `seconds`: TURN_SECONDS by default. `company`: whether several clients call."""

    def __init__(self, seconds: float | None = None, company: Callable[[], bool] = lambda: False) -> None:
        self._seconds = TURN_SECONDS if seconds is None else seconds
        self._company = company
        # Seconds that are left in this turn of the loop, and whether the next turn will renew them.
        self._left = self._seconds
        self._renewal_due = False
        self._waiting: RoundRobin[asyncio.Future[None]] = RoundRobin()

    async def begin(self, client: str) -> float:
        """Wait for a slice; returns the instant at which the slice ends. end() must follow."""
        if self._left <= 0 or self._waiting:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.add(client, turn)
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():  # the slice was granted already
                    self._grant()
                raise
        return deadline.now() + self._left

    def end(self, began: float) -> None:
        """End the slice that began at an instant of the monotonic clock."""
        self._left -= deadline.now() - began
        if not self._renewal_due:
            self._renewal_due = True
            asyncio.get_running_loop().call_soon(self._renew)
        if self._left > 0:
            self._grant()

    def _renew(self) -> None:
        """Renew the time; a turn pays for what slices of earlier turns took beyond their end."""
        seconds = self._seconds * (COMPANY_SHARE if self._company() else 1.0)
        self._left = seconds + min(0.0, max(self._left, -MOST_TURNS * seconds))
        if self._left > 0:
            self._renewal_due = False
            self._grant()
        else:
            asyncio.get_running_loop().call_soon(self._renew)

    def _grant(self) -> None:
        """Wake the next stream that waits."""
        while self._waiting:
            turn = self._waiting.pop()
            if not turn.done():
                turn.set_result(None)
                return
