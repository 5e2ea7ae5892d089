"""A client that says on stderr what a long call waits for.

Owns the time until the note, and its text. A call without a ready replica waits silently at the gateway.
"""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from market_inference.cli.printable import echo
from market_inference.client import calls
from market_inference.client.attempt import CallOptions
from market_inference.client.client import Client
from market_inference.errors import MarketInferenceError

T = TypeVar("T")

NOTE_AFTER = 2.0
"""Seconds of a call until the note."""
_LOOK_SECONDS = 1.0


class WaitingClient(Client):
    """A Client with such a note for each call, and none for sessions and streams."""

    def _run(self, method: Callable[..., Any], call: calls.Call[T], options: CallOptions) -> T:
        done = threading.Event()
        timer = threading.Timer(NOTE_AFTER, self._tell, (done,))
        timer.daemon = True
        timer.start()
        try:
            return super()._run(method, call, options)
        finally:
            done.set()
            timer.cancel()

    def _tell(self, done: threading.Event) -> None:
        """Say what the call waits for, unless the call is done meanwhile."""
        why = ""
        try:
            # Without the note of its own that self.status() would have.
            found = super()._run(self.status, calls.get_status(), {"timeout": _LOOK_SECONDS})
            if found.health == "unhealthy":
                replicas = "; ".join(f"{replica.name}: {replica.message}" for replica in found.replicas)
                why = f": no inference replica is ready ({replicas or 'none is known'})"
        except MarketInferenceError:
            pass  # the call itself ends with the error
        if not done.is_set():
            echo(f"Note: still waiting for {self.target}, {self._timeout:g} s at most (--timeout){why}", err=True)
