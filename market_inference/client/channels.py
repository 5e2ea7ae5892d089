"""As many gRPC channels as the long calls of a client need, such as live sessions.

Owns the count of calls on each channel. A gateway takes 100 calls on a connection. gRPC lets further calls wait in the
client, without an error, until others end: behind sessions, forever.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from market_inference.contract.generated.inference_pb2_grpc import MarketInferenceServiceStub
from market_inference.errors import ClosedError

CALLS: Final = 64
"""Calls on one channel."""


class SharedChannel:
    """A channel with the number of its calls; `stub`: the RPCs."""

    __slots__ = ("calls", "channel", "stub")

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.stub: Any = MarketInferenceServiceStub(channel)
        self.calls = 0


class Channels:
    """Channels made by `make`, after those in `made`. Threads may share the object."""

    def __init__(self, make: Callable[[], Any], *made: Any) -> None:
        self._make = make
        self._closed = False
        self._lock = threading.Lock()
        self._channels = [SharedChannel(channel) for channel in made]

    def take(self) -> SharedChannel:
        """A channel with room for one more call; leave() must follow. Raises ClosedError after close()."""
        with self._lock:
            if self._closed:
                raise ClosedError("this client is closed: make a new one")
            found = next((channel for channel in self._channels if channel.calls < CALLS), None)
            if found is None:
                found = SharedChannel(self._make())
                self._channels.append(found)
            found.calls += 1
            return found

    def leave(self, channel: SharedChannel) -> None:
        """End the call on the channel, which stays open for the next call."""
        with self._lock:
            channel.calls -= 1

    @contextmanager
    def stub(self) -> Iterator[Any]:
        """The RPCs on a channel with room, for one call in the block. Raises ClosedError."""
        channel = self.take()
        try:
            yield channel.stub
        finally:
            self.leave(channel)

    def replace(self, make: Callable[[], Any], *made: Any) -> None:
        """Use other channels for further calls. A channel from before closes after its last call, without a user."""
        with self._lock:
            self._make = make
            self._channels = [SharedChannel(channel) for channel in made]

    def close(self) -> list[Any]:
        """Take no more calls; returns the gRPC channels, for the caller to close."""
        with self._lock:
            self._closed = True
            return [shared.channel for shared in self._channels]
