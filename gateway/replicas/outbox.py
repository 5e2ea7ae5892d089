"""Envelopes on their way to a replica: those that are ready in the same loop turn leave in one frame.

Owns the frames of an Exchange call. The envelopes come from replica.py and streams/session_link.py.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from market_inference.contract.generated.exchange_pb2 import Envelope, ExchangeRequest

# A frame takes no more envelopes once it holds this many bytes, so that a large request delays few others.
FRAME_BYTES = 1 << 20


class Outbox:
    """The envelopes of one Exchange call that have not been written yet."""

    def __init__(self) -> None:
        self._envelopes: list[Envelope] = []
        self._sizes: list[int] = []
        self._wake = asyncio.Event()

    def add(self, envelope: Envelope, size_bytes: int = 0) -> None:
        """`size_bytes` is the size of the envelope's body; small envelopes need none."""
        self._envelopes.append(envelope)
        self._sizes.append(size_bytes)
        self._wake.set()

    def wake(self) -> None:
        """Have write() look again whether the call is complete."""
        self._wake.set()

    async def write(self, call: Any, complete: Callable[[], bool]) -> None:
        """Write frames to an Exchange call until `complete()`, then end the call's requests."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._envelopes:
                await call.write(self._frame())
            if complete():
                await call.done_writing()
                return

    def _frame(self) -> ExchangeRequest:
        count = size = 0
        while count < len(self._sizes) and (not count or size < FRAME_BYTES):
            size += self._sizes[count]
            count += 1
        frame = ExchangeRequest(envelopes=self._envelopes[:count])
        del self._envelopes[:count], self._sizes[:count]
        return frame
