"""Envelopes on their way to a replica: those that are ready in the same loop turn leave in one frame.

Owns the content of the frames of one Exchange stream. The envelopes come from replica.py and streams/session_link.py.
"""

import asyncio
from collections.abc import Callable

from gateway.replicas.carrier import Carrier, StreamLostError
from market_inference.contract.encoding import wireformat
from market_inference.contract.generated.exchange_pb2 import Envelope, ExchangeRequest
from runtime.frame_queue import LARGE_BYTES, FrameQueue

_ENVELOPES = ExchangeRequest.ENVELOPES_FIELD_NUMBER


class Outbox:
    """The envelopes of one Exchange stream that have not been written yet."""

    def __init__(self) -> None:
        self._ready = FrameQueue()
        self._wake = asyncio.Event()

    def add(self, envelope: Envelope, field: str = "", body: bytes = b"") -> None:
        """Write an envelope. `body` is the serialised request for the envelope's field `field`; it is not copied.

        A large body stands first, where the replica finds it without parsing the envelope around it. An envelope under
        the id of a large request that was not written yet follows this request.
        """
        content = wireformat.pieces(Envelope.DESCRIPTOR.fields_by_name[field].number, body) if field else ()
        large, head = len(body) >= LARGE_BYTES, envelope.SerializeToString()
        pieces = wireformat.pieces(_ENVELOPES, *((*content, head) if large else (head, *content)))
        if not self._ready.follow(envelope.id, pieces):
            self._ready.add(pieces, envelope.id if large else None)
        self._wake.set()

    def discard(self, envelope_id: int) -> bool:
        """Drop a large request that was not written yet; whether there was one."""
        return self._ready.discard(envelope_id)

    def wake(self) -> None:
        """Have write() look again whether the call is complete."""
        self._wake.set()

    async def write(self, exchange: Carrier, complete: Callable[[], bool]) -> None:
        """Write frames until `complete()`, then end the stream's requests, or until the stream is lost."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._ready:
                    await exchange.write(self._ready.take())
                if complete():
                    await exchange.done_writing()
                    return
        except StreamLostError:  # the reader of the stream reports the loss
            return
