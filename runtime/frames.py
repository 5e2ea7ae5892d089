"""Frames over a Unix socket: messages between two processes of one machine, without HTTP/2.

Owns the framing (length, kind, content), the bounded writes, and the detection of a lost or frozen peer. The content of
the frames is the Exchange stream's: inference/transport/local.py and gateway/replicas/carrier.py.

A connection is lost when it closes before the peer's END frame. The kernel closes the socket of a process that dies, so
that the loss is noticed at once.
"""

import asyncio
from collections.abc import Callable
from enum import IntEnum
from struct import Struct
from typing import Final, cast

# The largest frame: 1 MiB of envelopes or replies, and one more request or answer, of at most 32 MiB.
MOST_BYTES: Final = 64 << 20
# A write waits while more bytes than this wait for the peer.
UNSENT_BYTES: Final = 256 << 10
# The size of the read buffer; the content of a larger frame has a buffer of its own.
_READ_BYTES: Final = 256 << 10
_HEAD: Final = Struct("<IB")


class ConnectionLostError(Exception):
    """The connection closed before the peer's END frame."""


class _Kind(IntEnum):
    DATA = 0
    END = 1
    """The sender sends no further DATA frame."""
    PING = 2
    PONG = 3


class Frames(asyncio.BufferedProtocol):
    """One end of a connection, for loop.create_unix_connection() or loop.create_unix_server().

    `on_frame` gets the content of each DATA frame, in order, in the loop turn of its arrival. `on_end` is called once:
    with None at the peer's END frame, or with the ConnectionLostError of a connection that closed before.

    `ping_seconds`: the time between two pings; a peer that sends nothing between two pings is lost. 0 for no pings.
    """

    def __init__(
        self,
        on_frame: Callable[[bytes | bytearray], None],
        on_end: Callable[[ConnectionLostError | None], None],
        *,
        ping_seconds: float = 0.0,
    ) -> None:
        self._on_frame = on_frame
        self._on_end: Callable[[ConnectionLostError | None], None] | None = on_end
        self._ping_seconds = ping_seconds
        self._small = bytearray(_READ_BYTES)
        # What is read into: `_small`, or the content of a large frame of the kind `_large`.
        self._buffer = self._small
        self._filled = 0
        self._large: int | None = None
        self._transport: asyncio.Transport | None = None
        # Set once write() need not wait for the connection: it is open, or given up.
        self._opened = asyncio.Event()
        # Set while write() has to wait.
        self._room: asyncio.Future[None] | None = None
        self._heard = True
        self._ping: asyncio.TimerHandle | None = None
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=UNSENT_BYTES)
        self._opened.set()
        if self._ping_seconds:
            self._ping = asyncio.get_running_loop().call_later(self._ping_seconds, self._check_peer)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._ping is not None:
            self._ping.cancel()
        self.resume_writing()
        self._end(ConnectionLostError("the connection closed"))
        self.closed.set()

    def pause_writing(self) -> None:
        self._room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, count: int) -> None:
        self._heard = True
        self._filled += count
        if self._large is None:
            self._take_small()
        elif self._filled == len(self._buffer):
            kind, content = self._large, self._buffer
            self._large, self._buffer, self._filled = None, self._small, 0
            self._take(kind, content)

    def _take_small(self) -> None:
        """Take the complete frames of the small buffer, and keep an incomplete frame at the start of a buffer."""
        buffer, filled, at = memoryview(self._small), self._filled, 0
        while filled - at >= _HEAD.size:
            size, kind = _HEAD.unpack_from(buffer, at)
            if size > MOST_BYTES:
                self.abort()
                return
            start, end = at + _HEAD.size, at + _HEAD.size + size
            if end - at > len(buffer):
                self._large, self._buffer, self._filled = kind, bytearray(size), filled - start
                self._buffer[: filled - start] = buffer[start:filled]
                return
            if end > filled:
                break
            self._take(kind, bytes(buffer[start:end]))
            at = end
        self._filled = filled - at
        if at:
            buffer[: self._filled] = buffer[at:filled]

    def _take(self, kind: int, content: bytes | bytearray) -> None:
        if kind == _Kind.DATA:
            self._on_frame(content)
        elif kind == _Kind.END:
            self._end(None)
        elif kind == _Kind.PING:
            self._send(_Kind.PONG)

    def _end(self, error: ConnectionLostError | None) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(error)

    def _check_peer(self) -> None:
        if not self._heard:
            self.abort()
            return
        self._heard = False
        self._send(_Kind.PING)
        self._ping = asyncio.get_running_loop().call_later(self._ping_seconds, self._check_peer)

    async def write(self, *pieces: bytes) -> None:
        """Send a DATA frame, once connected; returns when the peer has room for more. Raises ConnectionLostError."""
        if not self._opened.is_set():
            await self._opened.wait()
        self._send(_Kind.DATA, *pieces)
        if self._room is not None:
            await self._room
        if self._transport is None:
            raise ConnectionLostError("the connection closed")

    def end(self) -> None:
        """Send the END frame: no DATA frame follows."""
        self._send(_Kind.END)

    def _send(self, kind: _Kind, *pieces: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.writelines((_HEAD.pack(sum(map(len, pieces)), kind), *pieces))

    def close(self) -> None:
        """Close the connection after the bytes that wait; `closed` is set then."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close the connection at once, or give up one that is not open yet."""
        self._opened.set()
        if self._transport is not None:
            self._transport.abort()
