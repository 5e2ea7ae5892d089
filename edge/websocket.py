"""A WebSocket connection whose unread messages and incomplete message count against a budget of all connections.

uvicorn bounds a message, and stops reading when one is complete. But each of thousands of connections may hold the
beginning of a message for as long as it likes, and one read may hold thousands of small messages.
"""

from typing import Any, Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from edge.admission import Count
from market_inference.contract.errors import OverloadedError

_SMALL: Final = 16 << 10
"""Bytes that each connection has without counting: an honest bar is a hundred."""
_MESSAGE: Final = 400
_FRAGMENT: Final = 60
"""What Python needs for a waiting message, and for a fragment of one, beside the bytes."""


def counted(memory: Count) -> type[WebSocketsSansIOProtocol]:
    """The class of connections for uvicorn. A connection above the budget is closed."""

    class Connection(WebSocketsSansIOProtocol):
        _fragments = 0
        _counted = 0

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._count()

        def connection_lost(self, exc: Exception | None) -> None:
            memory.remove(self._counted)
            self._counted = 0
            super().connection_lost(exc)

        async def receive(self) -> Any:
            message = await super().receive()
            self._count()
            return message

        def handle_text(self, event: Frame) -> None:
            self._fragments = len(event.data) + _FRAGMENT
            super().handle_text(event)

        def handle_bytes(self, event: Frame) -> None:
            self._fragments = len(event.data) + _FRAGMENT
            super().handle_bytes(event)

        def handle_cont(self, event: Frame) -> None:
            self._fragments += len(event.data) + _FRAGMENT
            super().handle_cont(event)

        def send_receive_event_to_app(self) -> None:
            self._fragments = 0
            super().send_receive_event_to_app()

        def _count(self) -> None:
            if self.transport.is_closing():
                return
            size = len(self.conn.reader.buffer) + self._fragments + _MESSAGE * self.queue.qsize()
            wanted = size if size > _SMALL else 0
            try:
                memory.add(wanted - self._counted)
            except OverloadedError:
                self.transport.close()
            else:
                self._counted = wanted

    return Connection
