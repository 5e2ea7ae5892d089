"""The memory of answers that are being computed or wait to be sent.

Owns the bound: a request is refused before the computation if the answers in memory would exceed the bound. An answer
may be hundreds of times as large as the request. A client may hold half of the bound. The inputs of sessions'
forecasts have another bound (sessions/service.py).
"""

from collections.abc import Callable

from market_inference.contract.errors import AnswerTooLargeError, OverloadedError

CLIENT_SHARE = 0.5


class AnswerMemory:
    """Bytes of answers, or of other memory named `what`: at most `limit`, and `share` of the limit for a client.

    `unsent()` gives the bytes of complete answers that are not sent yet.
    """

    def __init__(
        self,
        limit: int,
        unsent: Callable[[], int] = lambda: 0,
        *,
        share: float = CLIENT_SHARE,
        what: str = "answers",
    ) -> None:
        self._limit = limit
        self._client_limit = int(limit * share)
        self._what = what
        self._held: dict[str, int] = {}
        self.held_bytes = 0
        self.unsent = unsent

    def hold(self, client: str, size_bytes: int) -> int:
        """Reserve an answer's bytes until release(); returns them. Raises AnswerTooLargeError or OverloadedError."""
        if size_bytes > self._client_limit:
            raise AnswerTooLargeError(self._client_limit, size_bytes)
        mine = self._held.get(client, 0) + size_bytes
        if mine > self._client_limit or self.held_bytes + self.unsent() + size_bytes > self._limit:
            raise OverloadedError(
                f"the {self._what} in memory leave no room for {size_bytes} bytes (max {self._limit} bytes in all, "
                f"{self._client_limit} of one client)",
                retry_after=0.5,
            )
        self._held[client] = mine
        self.held_bytes += size_bytes
        return size_bytes

    def release(self, client: str, size_bytes: int) -> None:
        """Release the bytes of an answer that is complete, or will never be."""
        self.held_bytes -= size_bytes
        # Absent after an answer of 0 bytes while no other answer is left.
        remaining = self._held.get(client, 0) - size_bytes
        if remaining:
            self._held[client] = remaining
        else:
            self._held.pop(client, None)
