"""The Exchange streams that carry live sessions, one per replica with sessions.

Owns the frames. A link has no maximum age, unlike the streams of requests, since a session stays on the replica that
holds its state. A link ends with its last session, or with the replica, and then reports the loss to its sessions.
"""

import asyncio
import logging
from typing import Any, Protocol

import grpc

from gateway.replicas.replica import FRAME_BYTES, Replica
from market_inference.contract.generated import exchange_pb2
from runtime.logs import fields

log = logging.getLogger(__name__)


class Sink(Protocol):
    """Where a session's replies go."""

    def told(self, reply: exchange_pb2.Reply) -> None: ...
    def lost(self) -> None: ...


class Link:
    """One replica's sessions, by their envelopes' id. Bars that are ready in the same loop turn share a frame."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._sinks: dict[int, Sink] = {}
        self._outbox: list[exchange_pb2.Envelope] = []
        self._wake = asyncio.Event()
        self._ended = False
        self._task = asyncio.create_task(self._run())

    @property
    def usable(self) -> bool:
        return not self._ended

    def open(self, envelope: exchange_pb2.Envelope, sink: Sink) -> None:
        """Open a session; its replies go to the sink."""
        self._sinks[envelope.id] = sink
        self.send(envelope)

    def send(self, envelope: exchange_pb2.Envelope) -> None:
        self._outbox.append(envelope)
        self._wake.set()

    def close(self, session: int) -> None:
        """The caller has gone."""
        if self._sinks.pop(session, None) is not None and not self._ended:
            self.send(exchange_pb2.Envelope(id=session, cancel=exchange_pb2.ExchangeCancel()))

    async def _run(self) -> None:
        call = self._replica.exchange()
        writer = asyncio.create_task(self._write(call))
        try:
            await self._read(call)
        except grpc.aio.AioRpcError as error:
            fate = fields(replica=self._replica.address, code=error.code().name, sessions=len(self._sinks))
            log.warning("link lost", extra=fate)
        finally:
            self._ended = True
            writer.cancel()
            call.cancel()
            sinks = tuple(self._sinks.values())
            self._sinks.clear()
            for sink in sinks:
                sink.lost()

    async def _read(self, call: Any) -> None:
        async for frame in call:
            for reply in frame.replies:
                sink = self._sinks.get(reply.id)
                if sink is not None:
                    sink.told(reply)

    async def _write(self, call: Any) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._outbox:
                await call.write(self._frame())
            if not self._sinks:
                self._ended = True
                await call.done_writing()
                return

    def _frame(self) -> exchange_pb2.ExchangeRequest:
        count = size = 0
        while count < len(self._outbox) and (not count or size < FRAME_BYTES):
            size += self._outbox[count].ByteSize()
            count += 1
        frame = exchange_pb2.ExchangeRequest(envelopes=self._outbox[:count])
        del self._outbox[:count]
        return frame


class Links:
    """The links in use, made when a replica gets its first session."""

    def __init__(self) -> None:
        self._links: dict[Replica, Link] = {}

    def to(self, replica: Replica) -> Link:
        link = self._links.get(replica)
        if link is None or not link.usable:
            self._links = {known: link for known, link in self._links.items() if link.usable}
            link = self._links[replica] = Link(replica)
        return link
