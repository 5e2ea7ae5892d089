"""A WebSocket connection whose unread messages and incomplete message count against a budget.

Owns the memory of a connection before the session reads a message. uvicorn bounds a message, but thousands of
connections may each hold a message, or the beginning of a message, without a time limit. One read may also bring
thousands of small messages: reads are short here, and a read is parsed as the session takes the messages. A connection
with small messages therefore stays below _BAR at any rate, and is never closed for the budget. Pings, pongs and
fragments give the session nothing to take: beyond a few, connections take turns.
"""

import asyncio
import logging
import sys
from typing import Any, Final

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

from edge.admission import Admission, Held
from edge.caller import Caller
from market_inference.contract.errors import OverloadedError, code_name
from runtime.logs import fields
from runtime.turns import Turns

log = logging.getLogger(__name__)

_READ: Final = 8 << 10
_PIECE: Final = 256
"""Bytes of one read, and bytes parsed at once: forty messages at most."""
_IDLE_FRAMES: Final = 16
"""Pings, pongs and fragments of a connection before the next connection's turn."""
_BAR: Final = 1 << 10
"""Bytes without a count: a session takes bars one by one, and each bar would be added and removed."""
_MESSAGE: Final = 350
_FRAGMENT: Final = 60
"""Memory of a waiting message, and of a fragment of a message, beside the text or bytes."""
# One for all connections: each read is copied before the next read.
_BUFFER: Final = memoryview(bytearray(_READ))


class _Unread(asyncio.Queue[Any]):
    """The events before the session takes them. `size`: the bytes of the messages in memory."""

    size = 0

    def _put(self, item: Any) -> None:
        self.size += _size(item)
        super()._put(item)

    def _get(self) -> Any:
        item = super()._get()
        self.size -= _size(item)
        return item


def _size(event: Any) -> int:
    """A text with one emoji takes four bytes for each letter, so the length is not enough."""
    data = event.get("text", event.get("bytes"))
    return 0 if data is None else _MESSAGE + sys.getsizeof(data)


class _Reader(asyncio.BufferedProtocol):
    """Gives a connection at most _READ bytes at once; a loop's own buffer takes 256 KiB."""

    def __init__(self, connection: WebSocketsSansIOProtocol) -> None:
        self._connection = connection
        self.connection_lost = connection.connection_lost  # type: ignore[method-assign]
        self.eof_received = connection.eof_received  # type: ignore[method-assign]
        self.pause_writing = connection.pause_writing  # type: ignore[method-assign]
        self.resume_writing = connection.resume_writing  # type: ignore[method-assign]

    def get_buffer(self, sizehint: int) -> memoryview:
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        self._connection.data_received(bytes(_BUFFER[:nbytes]))


def counted(admission: Admission) -> type[WebSocketsSansIOProtocol]:
    """The class of connections for uvicorn. A connection above the budget is closed with TRY_AGAIN_LATER (1013)."""
    memory, turns = admission.messages, Turns()

    class Connection(WebSocketsSansIOProtocol):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.queue = self._unread = _Unread()
            self._rest = b""
            self._fragments = 0
            self._idle_frames = 0
            self._turn: asyncio.Future[None] | None = None
            self._held = memory.of("")
            self._refused = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.loop.call_soon(self._read_little)

        def _read_little(self) -> None:
            if not self.transport.is_closing():
                self.transport.set_protocol(_Reader(self))

        def connection_lost(self, exc: Exception | None) -> None:
            if self._turn is not None:
                self._turn.cancel()
            self._drop()
            super().connection_lost(exc)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._parse_on()

        def data_received(self, data: bytes) -> None:
            if self._refused:
                return
            self._rest += data
            self._parse()
            if self._rest and not self.read_paused:
                self.read_paused = True
                self.transport.pause_reading()

        async def receive(self) -> Any:
            message = await self.queue.get()
            self._parse_on()
            return message

        async def send(self, message: Any) -> None:
            if self._refused:
                raise ClientDisconnected
            await super().send(message)
            if self.close_sent and self._rest:
                self._parse()

        def _parse_on(self) -> None:
            """Parse what is left, and then read again."""
            self._parse()
            if self.read_paused and not self._rest and self.queue.empty() and not self.transport.is_closing():
                self.read_paused = False
                self.transport.resume_reading()

        def _parse(self) -> None:
            """Parse until a message waits; after the session's end parse everything, since uvicorn drops messages."""
            while self._rest and self._may_parse():
                piece, self._rest = self._rest[:_PIECE], self._rest[_PIECE:]
                super().data_received(piece)
                if self._idle_frames >= _IDLE_FRAMES:
                    self._idle_frames = 0
                    self._turn = turns.take(admission.in_turn(self._caller(), self.client))
                    if self._turn is not None:
                        self._turn.add_done_callback(self._take_turn)
            self._count()

        def _may_parse(self) -> bool:
            """Pongs that the client does not read fill the transport's buffer: then no further ping is parsed."""
            is_idle = self.close_sent or self.queue.empty()
            return is_idle and self._turn is None and self.writable.is_set() and not self.transport.is_closing()

        def _take_turn(self, turn: asyncio.Future[None]) -> None:
            self._turn = None
            if not turn.cancelled():
                self._parse_on()

        def handle_ping(self) -> None:
            self._idle_frames += 1
            super().handle_ping()

        def handle_pong(self, event: Frame) -> None:
            self._idle_frames += 1
            super().handle_pong(event)

        def handle_text(self, event: Frame) -> None:
            self._fragments = len(event.data) + _FRAGMENT
            super().handle_text(event)

        def handle_bytes(self, event: Frame) -> None:
            self._fragments = len(event.data) + _FRAGMENT
            super().handle_bytes(event)

        def handle_cont(self, event: Frame) -> None:
            self._idle_frames += 1
            self._fragments += len(event.data) + _FRAGMENT
            super().handle_cont(event)

        def send_receive_event_to_app(self) -> None:
            self._fragments = 0
            super().send_receive_event_to_app()

        def _count(self) -> None:
            if self._refused or self.transport.is_closing():
                self._drop()
                return
            size = len(self._rest) + len(self.conn.reader.buffer) + self._fragments + self._unread.size
            if size <= _BAR and not self._held.size:
                return
            try:
                self._of_caller().set(unread=size)
            except OverloadedError as error:
                self._refuse(error)

        def _of_caller(self) -> Held:
            """The share of the credential; the key may come in the first message."""
            caller = self._caller()
            if caller is not None and caller.credential != self._held.credential:
                self._held.release()
                self._held = memory.of(caller.credential)
            return self._held

        def _caller(self) -> Caller | None:
            found: Any = getattr(self, "scope", {}).get("state", {}).get("caller")
            return found if isinstance(found, Caller) else None

        def _refuse(self, error: OverloadedError) -> None:
            """Tell the client and the operator, and give the memory back at once."""
            self._refused = True
            caller = self._caller()
            if caller is not None:
                caller.reason, caller.code = error.reason, code_name(error.code)
            log.warning(
                "websocket closed: %s", error, extra=fields(request_id="" if caller is None else caller.request_id)
            )
            self._drop()
            while not self._unread.empty():
                self._unread.get_nowait()
            if not self.close_sent:
                self._unread.put_nowait({"type": "websocket.disconnect", "code": CloseCode.TRY_AGAIN_LATER})
                self.stop_keepalive()
                self.conn.fail(CloseCode.TRY_AGAIN_LATER, "too many unread bytes; try again later")
                self.transport.write(b"".join(self.conn.data_to_send()))
                self.close_sent = True
                self._await_departure()

        def _await_departure(self) -> None:
            """To close with bytes unread would reset the connection, and the client might not see the code."""
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)
            if self.read_paused:
                self.read_paused = False
                self.transport.resume_reading()

        def _drop(self) -> None:
            """Drop all unread bytes."""
            self._rest = b""
            self._fragments = 0
            self.frames = []
            self.conn.reader.buffer.clear()
            self._held.release()

    return Connection
