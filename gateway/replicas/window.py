"""The number of calls of one client at a replica, while several clients call.

Owns the wait of a request for earlier requests of the client. Replies come in the order of the frames, one frame in a
turn of the event loop: hundreds of replies to one client would delay the replies to other clients.
"""

from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

from market_inference.contract.deadline import now
from runtime.company import Company

MOST_CALLS: Final = 24
"""Short calls of one client and priority at a replica, while other clients call."""
LONG_SECONDS: Final = 0.25
"""Calls with a longer estimate in all do not wait: the replica decides about a refusal."""

Key: TypeAlias = tuple[str, int]
"""The client and the priority of a request."""


class Request(Protocol):
    """A request to a replica: of so many calls, and expected seconds on the device. Compared by identity."""

    key: Key
    calls: int
    expected_seconds: float


class Window:
    """The requests of one stream to a replica: sent at once, or once earlier requests of the client are answered."""

    def __init__(self) -> None:
        # Of the requests that were sent: calls and expected seconds.
        self._sent: dict[Key, tuple[int, float]] = {}
        # What to send for each waiting request: the request first.
        self._waiting: dict[Key, dict[Request, list[Callable[[], None]]]] = {}
        self._company = Company()

    def add(self, request: Request, send: Callable[[], None]) -> None:
        """Send a request now or later."""
        key = request.key
        client, _ = key
        self._company.note(client, now(), others=any(other != client for other, _ in self._sent))
        if key in self._waiting or not self._open(key):
            self._waiting.setdefault(key, {})[request] = [send]
        else:
            self._send(request, [send])

    def follow(self, request: Request, send: Callable[[], None]) -> bool:
        """Send something behind a waiting request. False if the request does not wait."""
        sends = self._waiting.get(request.key, {}).get(request)
        if sends is None:
            return False
        sends.append(send)
        return True

    def remove(self, request: Request) -> None:
        """A request is answered or abandoned: other requests of the client may be sent."""
        key = request.key
        waiting = self._waiting.get(key)
        if waiting is None or waiting.pop(request, None) is None:
            calls, seconds = self._sent[key]
            self._sent[key] = calls - request.calls, seconds - request.expected_seconds
        while waiting and self._open(key):
            first = next(iter(waiting))
            self._send(first, waiting.pop(first))
        if not waiting:
            self._waiting.pop(key, None)
            if not self._sent.get(key, (0,))[0]:
                self._sent.pop(key, None)

    def _open(self, key: Key) -> bool:
        calls, seconds = self._sent.get(key, (0, 0.0))
        return calls < MOST_CALLS or seconds >= LONG_SECONDS or now() >= self._company.until

    def _send(self, request: Request, sends: list[Callable[[], None]]) -> None:
        calls, seconds = self._sent.get(request.key, (0, 0.0))
        self._sent[request.key] = calls + request.calls, seconds + request.expected_seconds
        for send in sends:
            send()
