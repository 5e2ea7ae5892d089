"""Whether several clients call.

Owns the rule: a client has company for a while after a call of another client, and while work of another client is
under way, which may send nothing more.
"""

from typing import Final

SECONDS: Final = 1.0


class Company:
    """The company of the clients of one queue. The first client of all has none."""

    def __init__(self) -> None:
        self._client = ""
        self.until = 0.0
        """The instant, on the clock of note(), from which the latest client is alone."""

    def note(self, client: str, at: float, *, others: bool) -> None:
        """A client calls. `others`: whether work of another client is under way."""
        if others or (self._client and client != self._client):
            self.until = at + SECONDS
        self._client = client
