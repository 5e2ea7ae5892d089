"""Writes to a client that may not read: a time limit for each message of a Stream or Watch call.

Owns the time limit. gRPC cannot end a call while a message of the call waits for the client's flow control. So at the
limit the call gives up everything else, and ends when the message has left or the connection is closed.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from market_inference.contract import deadline
from market_inference.contract.errors import StalledReaderError


class _Write:
    __slots__ = ("give_up", "late", "stalled")

    def __init__(self, late: float, give_up: Callable[[], None]) -> None:
        self.late = late
        self.give_up = give_up
        self.stalled = False


class Writes:
    """The writes under way. A single timer watches all of them: a timer per message would cost more than the write."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._writes: set[_Write] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def write(self, context: Any, message: bytes, give_up: Callable[[], None]) -> None:
        """Write a message; `give_up` is called when the message has not left within the time limit.

        Raises StalledReaderError when the message has left after that time, CancelledError when the client has left.
        """
        write = _Write(deadline.after(self._seconds), give_up)
        self._writes.add(write)
        if self._timer is None:
            self._watch()
        try:
            await context.write(message)
        except grpc.aio.InternalError as gone:  # gRPC's word for a client that has left
            raise asyncio.CancelledError from gone
        finally:
            self._writes.discard(write)
        if write.stalled:
            raise StalledReaderError(
                f"no answer was read for {self._seconds:g} s: the requests in flight were cancelled"
            )

    def _watch(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._seconds / 4, self._end_stalled)

    def _end_stalled(self) -> None:
        self._timer = None
        now = deadline.now()
        for write in [write for write in self._writes if now >= write.late and not write.stalled]:
            write.stalled = True
            write.give_up()
        if self._writes:
            self._watch()
