"""The Exchange stream on a Unix socket, for gateways of the same user on this machine.

Owns the listening socket and one task per connection, the writer of the replies. A connection carries one stream,
like a call of gRPC. The frames are exchange.py's, the framing is runtime/frames.py's.
"""

import asyncio
from contextlib import suppress
from typing import Final

from inference.transport.exchange import Exchange
from runtime.frames import ConnectionLostError, Frames
from runtime.listen import bind_unix

# A gateway without an answer to a ping is gone, with its requests and sessions, as with gRPC's keepalive.
PING_SECONDS: Final = 5.0


class LocalServer:
    """Serves an Exchange at a path."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._server: asyncio.Server | None = None
        # The task and the connection of each stream.
        self._streams: dict[asyncio.Task[None], Frames] = {}

    async def start(self, path: str) -> None:
        """Listen; the socket file of a dead process is replaced. Raises OSError."""
        self._server = await asyncio.get_running_loop().create_unix_server(self._accept, sock=bind_unix(path))

    def _accept(self) -> Frames:
        stream = self._exchange.open()

        def ended(error: ConnectionLostError | None) -> None:
            stream.end_requests()
            if error is not None:
                task.cancel()

        frames = Frames(stream.receive, ended, ping_seconds=PING_SECONDS)

        async def serve() -> None:
            try:
                with suppress(ConnectionLostError):
                    async for pieces in stream.replies():
                        await frames.write(*pieces)
                    frames.end()
            finally:
                stream.close()
                frames.close()

        task = asyncio.get_running_loop().create_task(serve())
        self._streams[task] = frames
        task.add_done_callback(self._streams.pop)
        return frames

    async def stop(self, grace: float) -> None:
        """Close the socket and the connections; waiting bytes have `grace` seconds to leave."""
        if self._server is None:
            return
        self._server.close()
        streams = dict(self._streams)
        for task in streams:
            task.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await asyncio.gather(*(frames.closed.wait() for frames in streams.values()))
        for frames in streams.values():
            frames.abort()
