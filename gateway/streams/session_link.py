"""The Exchange streams of live sessions: a link per replica with sessions.

Owns the frames. A link has no maximum age, unlike the streams of requests, since a session cannot change the
replica. A link ends with the last session, or with the replica; then the sessions get a report of the loss.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from gateway.replicas.carrier import StreamLostError
from gateway.replicas.outbox import Outbox
from gateway.replicas.replica import Replica
from market_inference.contract.generated import exchange_pb2
from runtime.logs import fields

log = logging.getLogger(__name__)


class _Session(NamedTuple):
    on_reply: Callable[[exchange_pb2.Reply], None]
    on_lost: Callable[[], None]


class Link:
    """One replica's sessions, by the id of their envelopes."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._sessions: dict[int, _Session] = {}
        self._outbox = Outbox()
        self._ended = False
        self._task = asyncio.create_task(self._run())

    @property
    def usable(self) -> bool:
        return not self._ended

    def open(
        self,
        envelope: exchange_pb2.Envelope,
        on_reply: Callable[[exchange_pb2.Reply], None],
        on_lost: Callable[[], None],
    ) -> None:
        """Open a session; `on_lost` is called when the link ends before the session."""
        self._sessions[envelope.id] = _Session(on_reply, on_lost)
        self._outbox.add(envelope)

    def send(self, envelope: exchange_pb2.Envelope) -> None:
        self._outbox.add(envelope)

    def close(self, session_id: int) -> None:
        """End a session after the caller has left."""
        if self._sessions.pop(session_id, None) is not None and not self._ended:
            self.send(exchange_pb2.Envelope(id=session_id, cancel=exchange_pb2.ExchangeCancel()))

    def _complete(self) -> bool:
        """The link ends with the last session."""
        self._ended = self._ended or not self._sessions
        return self._ended

    async def _run(self) -> None:
        exchange = self._replica.exchange()
        # A replica that hangs leaves its streams open: without this, the sessions would wait for the keepalive.
        self._replica.on_give_up.add(exchange.cancel)
        writer = asyncio.create_task(self._outbox.write(exchange, self._complete))
        try:
            await exchange.read(self._received)
        except StreamLostError as error:
            lost = fields(replica=self._replica.address, code=error.code, sessions=len(self._sessions))
            log.warning("link lost", extra=lost)
        finally:
            self._ended = True
            self._replica.on_give_up.discard(exchange.cancel)
            writer.cancel()
            exchange.cancel()
            sessions = tuple(self._sessions.values())
            self._sessions.clear()
            for session in sessions:
                session.on_lost()

    def _received(self, frame: exchange_pb2.ExchangeResponse) -> None:
        for reply in frame.replies:
            session = self._sessions.get(reply.id)
            if session is not None:
                session.on_reply(self._replica.checked(reply, "watch"))


class Links:
    """The links in use; a replica gets a link with the first session."""

    def __init__(self) -> None:
        self._links: dict[Replica, Link] = {}

    def to(self, replica: Replica) -> Link:
        link = self._links.get(replica)
        if link is None or not link.usable:
            self._links = {known: link for known, link in self._links.items() if link.usable}
            link = self._links[replica] = Link(replica)
        return link
