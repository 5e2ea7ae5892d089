"""A live session from the gateway's view: identity, phase, and answers in order.

Owns the order of a session's answers. state.py owns bars and indicators; service.py owns opening, scheduling and memory
limits.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, TypeAlias

from inference.sessions.interval import Interval
from inference.sessions.state import SessionState
from market_inference.contract.errors import ServiceError
from market_inference.contract.generated import answers_pb2, exchange_pb2, inference_pb2
from runtime.tasks import Tasks

Send: TypeAlias = Callable[[exchange_pb2.Reply], None]


class Phase(Enum):
    """A session's life. Bars that arrive before a session is open wait in `early_bars`."""

    OPENING = auto()
    """The request is being checked, its forecast model loaded, then the history."""
    OPEN = auto()
    CLOSED = auto()


class Session:
    """A session on its stream. Answers leave in the order of the bars, however long a forecast takes."""

    def __init__(self, envelope: exchange_pb2.Envelope, send: Send) -> None:
        self.id = envelope.id
        self.request_id = envelope.request_id
        self.client = envelope.client
        self.horizon = envelope.watch_open.forecast.horizon
        self.period = envelope.watch_open.forecast.period
        self.symbol = envelope.watch_open.symbol
        self.phase = Phase.OPENING
        self.state: SessionState | None = None
        self.model: Any = None
        self.model_name = ""
        self.levels: tuple[float, ...] = ()
        self.interval = Interval()
        self.taken = 0
        self.size_bytes = 0
        self.early_bars: list[inference_pb2.WatchBar] = []
        self.opening: asyncio.Task[None] | None = None
        self.forecasts = Tasks()
        self._send = send
        self._answers: deque[list[exchange_pb2.Reply]] = deque()

    @property
    def closed(self) -> bool:
        return self.phase is Phase.CLOSED

    def reserve(self) -> list[exchange_pb2.Reply]:
        """The place of the next answer in order, for answer()."""
        place: list[exchange_pb2.Reply] = []
        self._answers.append(place)
        return place

    def answer(self, response: answers_pb2.WatchAnswer, place: list[exchange_pb2.Reply] | None = None) -> None:
        """Send a response in the reserved place, else in the next place."""
        place = self.reserve() if place is None else place
        update = response.update
        # The caller holds every bar since the last checkpoint.
        kept = response.HasField("checkpoint") or update.HasField("forecast_error")
        watch = exchange_pb2.WatchReply(
            response=response.SerializeToString(),
            replaceable=response.HasField("update") and not kept,
            forecast=update.HasField("forecast"),
        )
        place.append(exchange_pb2.Reply(id=self.id, watch=watch))
        while self._answers and self._answers[0]:
            (reply,) = self._answers.popleft()
            if not self.closed:
                self._send(reply)

    def end(self, error: ServiceError) -> None:
        """Tell the gateway that the session has ended."""
        if not self.closed:
            self.phase = Phase.CLOSED
            self._send(exchange_pb2.Reply(id=self.id, error=error.status(self.request_id)))
