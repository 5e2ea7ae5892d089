"""Clients that reset most of their calls: such calls begin one after the other, at a fixed pace.

Owns the counts of calls that ended and of calls that were reset, by client, and the pace. gRPC in Python hands a call
over before the reset of the call is seen. A client that opens and resets calls pays nothing for them, so no limit of
calls in flight bounds the client's share of the event loop. A call that waits keeps its place among the calls of its
connection, and a connection without a free place brings no further call.
"""

import asyncio
import logging
from typing import Any

from market_inference.contract import deadline
from runtime.logs import fields
from runtime.round_robin import RoundRobin

log = logging.getLogger(__name__)

WINDOW_SECONDS = 10.0
# Of one client in a window. A client that ends, hedges or runs into time-outs may reset hundreds of calls at once.
MOST_RESETS = 500
# Between two beginnings, for all slow clients together.
PACE_SECONDS = 0.002
# Calls that wait; a further call begins at once.
MOST_WAITING = 4_096


class Turn(asyncio.Future[Any]):
    """A wait that a reset does not end: a call that is reset keeps its place until its turn, else resets would have no
    limit. The handler's task is cancelled after the wait.
    """

    def cancel(self, msg: Any = None) -> bool:
        return False


class Resets:
    """The slow clients of one transport.

    A client is slow once more than MOST_RESETS calls of a window, and more than half of the client's calls, are reset.
    After a window without such a majority the client is no longer slow. Calls that waited for a turn are not counted:
    they may run into time-outs because they waited, and the client would be slow for ever.
    """

    def __init__(self) -> None:
        # By client: the calls that ended in this window, and the number of resets among them.
        self._counts: dict[str, tuple[int, int]] = {}
        self._window_ends = 0.0
        self._slow: set[str] = set()
        self._turns: RoundRobin[Turn] = RoundRobin()
        self._waiting = 0
        self._most = MOST_WAITING
        self._timer: asyncio.TimerHandle | None = None

    def ended(self, client: str, *, reset: bool) -> None:
        """Count a call of the client that had no turn."""
        self._look_at_window()
        calls, resets = self._counts.get(client, (0, 0))
        calls, resets = self._counts[client] = calls + 1, resets + reset
        if resets > MOST_RESETS and _majority(calls, resets) and client not in self._slow:
            self._slow.add(client)
            log.warning("client resets its calls", extra=fields(client=client, calls=calls, resets=resets))

    def turn(self, client: str) -> Turn | None:
        """None when a call of the client may begin at once, else a future that is done when the call may begin."""
        self._look_at_window()
        if client not in self._slow or self._waiting >= self._most:
            return None
        turn = Turn()
        self._turns.add(client, turn)
        self._waiting += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PACE_SECONDS, self._next)
        return turn

    def close(self) -> None:
        """Let all calls begin, now and from now on: a wait would delay the server's end."""
        self._most = 0
        if self._timer is not None:
            self._timer.cancel()
        while self._turns:
            self._begin()

    def _look_at_window(self) -> None:
        now = deadline.now()
        if now >= self._window_ends:
            self._slow = {name for name in self._slow if _majority(*self._counts.get(name, (0, 0)))}
            self._counts.clear()
            self._window_ends = now + WINDOW_SECONDS

    def _next(self) -> None:
        self._timer = None
        if self._turns:
            self._begin()
            self._timer = asyncio.get_running_loop().call_later(PACE_SECONDS, self._next)

    def _begin(self) -> None:
        self._waiting -= 1
        self._turns.pop().set_result(None)


def _majority(calls: int, resets: int) -> bool:
    return 2 * resets > calls
