"""One live session as its gateway sees it: its identity, its state and its answers in order.

Owns the order of a session's answers. The bars and indicators are in state.py; opening, scheduling and memory limits
are in service.py.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

from inference.sessions.interval import Interval
from inference.sessions.state import SessionState
from market_inference.contract.errors import ServiceError
from market_inference.contract.generated import answers_pb2, exchange_pb2, inference_pb2

Send: TypeAlias = Callable[[exchange_pb2.Reply], None]


class Session:
    """A session on its stream. Answers leave in the order of the bars, however long a forecast takes."""

    def __init__(self, envelope: exchange_pb2.Envelope, send: Send) -> None:
        self.id = envelope.id
        self.request_id = envelope.request_id
        self.client = envelope.client
        # Until the session is open; it would keep the whole frame that it came in.
        self.request: inference_pb2.WatchOpen | None = envelope.watch_open
        self.horizon = envelope.watch_open.forecast.horizon
        self.state: SessionState | None = None
        self.model: Any = None
        self.levels: tuple[float, ...] = ()
        self.interval = Interval()
        self.taken = 0
        self.nbytes = 0
        self.closed = False
        # Bars that came before the session was open.
        self.early: list[inference_pb2.WatchBar] | None = []
        self.opening: asyncio.Task[None] | None = None
        self.forecasts: set[asyncio.Task[None]] = set()
        self._send = send
        self._slots: deque[list[exchange_pb2.Reply]] = deque()

    def reserve(self) -> list[exchange_pb2.Reply]:
        """The place of the next answer; put the reply in and call flush()."""
        slot: list[exchange_pb2.Reply] = []
        self._slots.append(slot)
        return slot

    def answer(self, response: answers_pb2.WatchAnswer, slot: list[exchange_pb2.Reply] | None = None) -> None:
        """Send a response in its place, by default the next."""
        slot = self.reserve() if slot is None else slot
        watch = exchange_pb2.WatchReply(response=response.SerializeToString(), replaceable=response.HasField("update"))
        slot.append(exchange_pb2.Reply(id=self.id, watch=watch))
        self.flush()

    def end(self, error: ServiceError) -> None:
        """Tell the gateway that the session is over."""
        if not self.closed:
            self.closed = True
            self._send(exchange_pb2.Reply(id=self.id, error=error.status(self.request_id)))

    def flush(self) -> None:
        while self._slots and self._slots[0]:
            (reply,) = self._slots.popleft()
            if not self.closed:
                self._send(reply)
