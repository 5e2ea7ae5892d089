"""The two carriers of an Exchange stream to a replica: gRPC, and frames on a Unix socket of this machine.

Owns the difference between the two. The use of a stream is replica.py's (requests) and streams/session_link.py's
(sessions).
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import grpc

from market_inference.contract.generated.exchange_pb2 import DESCRIPTOR, ExchangeResponse
from runtime.frames import ConnectionLostError, Frames

_PATH: Final = f"/{DESCRIPTOR.services_by_name['ExchangeService'].full_name}/Exchange"
OnFrame = Callable[[ExchangeResponse], None]


class StreamLostError(Exception):
    """The stream ended, or did not open; `code` is the name of a gRPC status code."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class GrpcStream:
    """An Exchange call of gRPC."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        # Requests are bytes already.
        self._call: Any = channel.stream_stream(_PATH, response_deserializer=ExchangeResponse.FromString)()

    async def read(self, on_frame: OnFrame) -> None:
        """Open the stream and pass its frames on until the replica ends the stream. Raises StreamLostError."""
        try:
            async for frame in self._call:
                on_frame(frame)
        except grpc.aio.AioRpcError as error:
            raise StreamLostError(error.code().name) from error

    async def write(self, pieces: Sequence[bytes]) -> None:
        """Write an ExchangeRequest in pieces, once the replica has room for it. Raises StreamLostError."""
        try:
            await self._call.write(b"".join(pieces))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:  # the latter when the call has ended
            raise StreamLostError("UNAVAILABLE") from error

    async def done_writing(self) -> None:
        """End the stream, once no request waits for a reply: the replica ends its side, and read() returns."""
        await self._call.done_writing()

    def cancel(self) -> None:
        """End the stream at once; read() raises CancelledError."""
        self._call.cancel()


class LocalStream:
    """An own connection to a replica's Unix socket, with the methods of GrpcStream."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._on_frame: OnFrame = lambda frame: None
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._frames = Frames(self._received, self._end)

    async def read(self, on_frame: OnFrame) -> None:
        self._on_frame = on_frame
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: self._frames, self._path)
            await self._ended
        except (OSError, ConnectionLostError) as error:
            raise StreamLostError("UNAVAILABLE") from error
        finally:
            self._ended.cancel()
            self._frames.abort()

    def _received(self, content: bytes | bytearray) -> None:
        self._on_frame(ExchangeResponse.FromString(content))  # type: ignore[arg-type]  # takes bytearray, too

    def _end(self, error: ConnectionLostError | None) -> None:
        if self._ended.done():
            return
        if error is None:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(error)

    async def write(self, pieces: Sequence[bytes]) -> None:
        try:
            await self._frames.write(*pieces)
        except ConnectionLostError as error:
            raise StreamLostError("UNAVAILABLE") from error

    async def done_writing(self) -> None:
        self._frames.end()

    def cancel(self) -> None:
        self._ended.cancel()


Carrier: TypeAlias = GrpcStream | LocalStream
"""Carries an Exchange stream: frames to and from one replica."""
