"""Which session's work runs next: fair between clients, in order within a session.

Owns the waiting work of all sessions, as start-time fair queueing over clients (Goyal, Vin, Cheng 1996): the client
with the least served seconds has the next turn, and a client's sessions take turns. Pure data; the session service
runs the work.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import Generic, TypeVar

S = TypeVar("S")
W = TypeVar("W")

# Expected seconds of work before the first measurement.
_UNMEASURED_SECONDS = 0.0002
_GAIN = 0.2
# The served seconds of absent clients are kept until there are so many clients.
_MOST_CLIENTS = 4096


@dataclass(slots=True)
class _Queue(Generic[W]):
    """The waiting work of a session, and the running average of the work's seconds."""

    work: deque[W] = field(default_factory=deque)
    seconds: float = _UNMEASURED_SECONDS


class Turns(Generic[S, W]):
    """Waiting work of type W by hashable session of type S. Every session belongs to one client."""

    def __init__(self) -> None:
        self._queues: dict[S, _Queue[W]] = {}
        # By client: the sessions with waiting work, in the order of their turns.
        self._sessions: dict[str, deque[S]] = {}
        # Seconds served by client. A client that was absent joins at the clock: the served seconds of the last turn.
        self._served: dict[str, float] = {}
        self._clock = 0.0
        # (served seconds, arrival, client) of each client with waiting work. Served seconds may have grown since.
        self._heap: list[tuple[float, int, str]] = []
        self._arrivals = count()

    def __bool__(self) -> bool:
        return bool(self._sessions)

    def add(self, client: str, session: S, work: W, *, front: bool = False) -> None:
        """Add work behind, or in front of, the session's other work."""
        queue = self._queues.get(session)
        if queue is None:
            queue = self._queues[session] = _Queue()
        if not queue.work:
            self._activate(client, session, front)
        if front:
            queue.work.appendleft(work)
        else:
            queue.work.append(work)

    def _activate(self, client: str, session: S, front: bool) -> None:
        sessions = self._sessions.get(client)
        if sessions is None:
            sessions = self._sessions[client] = deque()
            self._served[client] = max(self._clock, self._served.get(client, 0.0))
            heappush(self._heap, (self._served[client], next(self._arrivals), client))
        if front:
            sessions.appendleft(session)
        else:
            sessions.append(session)

    def take(self, items: int, seconds: float) -> Iterator[tuple[str, S, W]]:
        """Remove the next work, at most so many items, until their expected seconds reach the bound."""
        while self._heap and items > 0 and seconds > 0:
            key, _, client = heappop(self._heap)
            sessions = self._sessions.get(client)
            if sessions is None:
                continue
            if self._served[client] > key:
                heappush(self._heap, (self._served[client], next(self._arrivals), client))
                continue
            self._clock = max(self._clock, key)
            session = sessions.popleft()
            queue = self._queues[session]
            work = queue.work.popleft()
            if queue.work:
                sessions.append(session)
            self._served[client] += queue.seconds
            if sessions:
                heappush(self._heap, (self._served[client], next(self._arrivals), client))
            else:
                del self._sessions[client]
            items -= 1
            seconds -= queue.seconds
            yield client, session, work
        if len(self._served) > _MOST_CLIENTS:
            self._served = {
                name: served for name, served in self._served.items() if served > self._clock or name in self._sessions
            }

    def put_back(self, client: str, session: S, work: W) -> None:
        """Return taken work without a run to the front of the session's queue."""
        self.add(client, session, work, front=True)
        self._served[client] -= self._queues[session].seconds

    def measured(self, client: str, session: S, seconds: float) -> None:
        """Charge a client for work of a session that took `seconds`."""
        queue = self._queues.get(session)
        if queue is None:
            return
        if client in self._served:
            self._served[client] += seconds - queue.seconds
        queue.seconds += _GAIN * (seconds - queue.seconds)

    def remove(self, client: str, session: S) -> None:
        """Remove a session and its waiting work."""
        queue = self._queues.pop(session, None)
        if queue is None or not queue.work:
            return
        sessions = self._sessions[client]
        sessions.remove(session)
        if not sessions:
            del self._sessions[client]
