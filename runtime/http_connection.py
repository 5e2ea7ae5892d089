"""A connection of the HTTP server: uvicorn's, with limits before a request reaches the application.

Owns the limits of headers in bytes, number and time, the refusal of headers that two servers may read in two ways, the
end of a connection whose client takes nothing of an answer or still sends after the answer, the wait of requests that
are sent before the answer to another one, and the answer to an Upgrade that the server does not offer. The limits of
bodies belong to the service.
"""

import asyncio
import contextlib
import re
import sys
from collections import deque
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

if sys.platform == "linux":
    import fcntl
    import termios

HEADER_BYTES: Final = 64 << 10
"""The most bytes of a request line with its headers, or of a chunked body's trailers."""
HEADERS: Final = 256
"""The most headers of a request, or trailers of a chunked body."""
HEADER_SECONDS: Final = 30.0
"""The time for the headers of a request, on a new connection too, and for the rest of a body after its answer."""
READER_SECONDS: Final = 30.0
"""A client that takes nothing of an answer for this time loses the connection."""
_PIECE: Final = 1 << 10
"""Bytes parsed at once: a parsed request takes some seventy times the memory of its 25 bytes."""
_CONTENT_PIECE: Final = 64 << 10
"""Bytes of a chunk's content that are parsed at once."""
_LAST_CHUNK: Final = re.compile(rb"\n0")
"""The size 0 of a body's last chunk comes after the end of a line. The content may have these bytes, too."""
_WRITE: Final = 64 << 10
"""The most bytes of a body that wait for the client beside those of the application."""
_TOO_LARGE: Final = "The headers are too large."
_UPGRADE: Final = frozenset((b"upgrade", b"http2-settings"))


class _RefusedError(Exception):
    """Raised in a callback of the parser: the answer to a request that is refused by its headers."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class HttpConnection(HttpToolsProtocol):
    """uvicorn's protocol on httptools; httptools itself has no limits."""

    reader_seconds = READER_SECONDS
    _overdue: asyncio.TimerHandle | None = None
    # Bytes since the parser last completed something: it keeps an incomplete header in memory.
    _pending = 0
    _header_bytes = 0
    _header_count = 0
    _in_body = False
    # Whether the parser is in the content of a chunk, or of a body of known length.
    _in_content = False
    # Bytes that are missing of a body of known length.
    _body_left = 0
    _is_lost = False
    _is_stalled = False
    # `cycle` is the newest request's: other requests may wait between the two.
    _running: RequestResponseCycle | None = None
    # What a request waits for before it begins.
    _begins: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.limit_concurrency is not None:
            if len(self.connections) > self.limit_concurrency:
                self.connections.discard(self)
                transport.abort()
            # uvicorn refuses all requests while there are so many connections, idle ones included, which is never now,
            # or so many requests under way: clients that have left leave some behind.
            self.limit_concurrency += 1
        # Not parsed yet, in order.
        self._left: deque[memoryview] = deque()
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self._arrived()
        self._left.clear()
        if self._begins is not None:
            self._begins.cancel()
        super().connection_lost(exc)
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    def data_received(self, data: bytes) -> None:
        self._left.append(memoryview(data))
        self._parse()

    def _parse(self) -> None:
        """Parse until a request waits for the answer to another one; further requests wait as bytes."""
        while self._left and not self.pipeline and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            if not self._in_body and self._is_answered():
                self._expect()
            part = self._left.popleft()
            size = self._body_left or self._piece(part)
            if len(part) > size:
                self._left.appendleft(part[size:])
                part = part[:size]
            self._parse_part(part)
        if self.transport.is_closing():
            self._left.clear()
        elif self._left:
            self.flow.pause_reading()

    def _piece(self, part: memoryview) -> int:
        """The bytes to parse at once, so that at most _PIECE bytes of further requests are among them."""
        if not self._in_content:
            return _PIECE
        last = _LAST_CHUNK.search(part, 0, _CONTENT_PIECE)
        return max(_PIECE, last.end()) if last else _CONTENT_PIECE

    def _parse_part(self, part: memoryview) -> None:
        self._pending += len(part)
        try:
            self.parser.feed_data(part)
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self._arrived()
                self._left.clear()
                self.handle_websocket_upgrade()
                return
            if self.parser.get_method() == b"CONNECT":
                self._refuse(400, "Invalid HTTP request received.")
                return
            self._left.appendleft(part[upgrade.args[0] :])
            self._left.appendleft(memoryview(self._without_upgrade()))
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, _RefusedError):
                self._refuse(error.__context__.status, error.__context__.text)
            else:
                self._refuse(400, "Invalid HTTP request received.")
            return
        if self._pending > HEADER_BYTES:
            self._refuse(431, _TOO_LARGE)

    def on_message_begin(self) -> None:
        self._restart()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(name, value)
        self._header_count += 1
        if self._header_count > HEADERS:
            raise _RefusedError(431, _TOO_LARGE)
        # Trailers are dropped: a proxy in front checks and replaces headers, and a trailer would come after its check.
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._restart()
        self._check_headers()
        if self.parser.should_upgrade():  # feed_data() raises HttpParserUpgrade now
            if self._should_upgrade():
                super().on_headers_complete()
            return
        self._in_body = True
        self._body_left = next((int(value) for name, value in self.headers if name == b"content-length"), 0)
        self._arrived()
        super().on_headers_complete()

    def _check_headers(self) -> None:
        """Refuse what a proxy in front may read in another way (RFC 9112, 3.2 and 6.1); httptools takes it.

        The parser finds an unknown transfer coding after the request has begun, and takes `gzip, chunked` for chunked.
        """
        old = self.parser.get_http_version() == "1.0"
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or not (hosts or old):
            raise _RefusedError(400, "A request has one Host header.")
        codings = [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"]
        if codings and old:
            raise _RefusedError(400, "HTTP/1.0 has no Transfer-Encoding.")
        if codings not in ([], [b"chunked"]):
            raise _RefusedError(501, "The only Transfer-Encoding is chunked.")

    def on_body(self, body: bytes) -> None:
        self._restart()
        self._body_left = max(0, self._body_left - len(body))
        self._in_content = True
        super().on_body(body)

    def on_chunk_complete(self) -> None:
        self._in_content = False

    def on_message_complete(self) -> None:
        self._restart()
        if self.parser.should_upgrade():
            return
        self._in_body = self._in_content = False
        self._arrived()
        super().on_message_complete()
        if self._is_answered():  # the bytes after the answer have ended the time of an idle connection
            self._expect()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._in_body and self._is_answered():  # the service reads the rest of the body no longer
            self._expect()
        self._parse()

    def _cancel_when_lost(self, begins: asyncio.Future[None]) -> None:
        self._begins = begins
        if self._is_lost:
            begins.cancel()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle

        async def limited(scope: Any, receive: Any, send: Any) -> None:
            async def send_within_time(message: Any) -> None:
                # A transport copies what waits, and with TLS the buffer below grows by the whole write.
                while len(body := message.get("body", b"")) > _WRITE:
                    await self._drain()
                    await send({**message, "body": bytes(body[:_WRITE]), "more_body": True})
                    message = {**message, "body": memoryview(body)[_WRITE:]}
                await self._drain()
                await send({**message, "body": bytes(body)} if body else message)

            scope["state"] |= {"taken": self._taken, "cancel_when_lost": self._cancel_when_lost}
            await app(scope, receive, send_within_time)

        super()._start_asgi_task(cycle, limited)

    async def _taken(self) -> bool:
        """Return when all that was written has left for the client, or the connection has ended.

        True if the connection ended because the client took nothing.
        """
        if not self._is_lost and self.transport.get_write_buffer_size():
            self.transport.set_write_buffer_limits(high=0)
            await self._drain()
            if not self._is_lost:
                self.transport.set_write_buffer_limits()
        return self._is_stalled

    async def _drain(self) -> None:
        """Return when more may be written, or the connection has ended: at the latest when the client stops to read."""
        while self.flow.write_paused and not self._is_stalled:
            before = self._unsent()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.reader_seconds):
                    await self.flow.drain()
            if self.flow.write_paused and self._unsent() >= before:
                self._is_stalled = True
                self.transport.abort()

    def _unsent(self) -> int:
        """Bytes that wait here, and on Linux those in the kernel without the client's acknowledgement."""
        waiting = self.transport.get_write_buffer_size()
        if sys.platform != "linux":
            return waiting
        found = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        return waiting + int.from_bytes(found, sys.byteorder)

    def _should_upgrade(self) -> bool:
        """An upgrade ends HTTP on the connection, and the answers of other requests would go into the WebSocket."""
        return self.parser.get_method() == b"GET" and self._is_answered() and super()._should_upgrade()

    def _without_upgrade(self) -> bytes:
        """The request's line and headers for a new parser, as if the request had asked for no upgrade.

        RFC 9110 has it so, and `Upgrade: h2c` is Java's default.
        """
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                value = b",".join(word for word in value.split(b",") if word.strip().lower() not in _UPGRADE)
            if name not in _UPGRADE:
                lines.append(b"%b: %b" % (name, value))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        return b"\r\n".join((*lines, b"", b""))

    def _is_answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _count(self, *parts: bytes) -> None:
        self._header_bytes += sum(map(len, parts)) + len(parts)
        if self._header_bytes > HEADER_BYTES:
            raise _RefusedError(431, _TOO_LARGE)

    def _restart(self) -> None:
        self._pending = self._header_bytes = self._header_count = 0

    def _refuse(self, status: int, text: str) -> None:
        self._arrived()
        self.logger.warning(text)
        if self._is_answered():
            self.transport.write(
                STATUS_LINE[status]
                + b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
                + b"content-length: %d\r\n\r\n%b" % (len(text), text.encode())
            )
        self.transport.close()

    def _expect(self) -> None:
        """Close the connection unless what is missing arrives in time."""
        if self._overdue is None:
            self._overdue = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _arrived(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None


def within(reader_seconds: float) -> type[HttpConnection]:
    """The class of connections whose client may take nothing of an answer for so many seconds."""
    return type("Connection", (HttpConnection,), {"reader_seconds": reader_seconds})
