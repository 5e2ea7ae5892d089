"""gRPC server reflection, which anyone may use without a credential: bounded in rate, bytes, streams and time.

Owns the bounds. The answers are grpcio's.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
from grpc_reflection.v1alpha.reflection import aio

REQUESTS_PER_SECOND = 10.0
BURST = 200.0
"""Requests of one address. A tool that reads the whole contract sends some twenty."""
MOST_BYTES = 1024
"""Bytes of a request, which comes back in the answer."""
MOST_STREAMS = 8
"""gRPC holds up to 16 MiB of the message that each stream waits for."""
STREAM_SECONDS = 30.0
_MOST_ADDRESSES = 4096


class Reflection(aio.ReflectionServicer):  # type: ignore[misc]  # the package has no types
    """grpcio's reflection within bounds. `clock` gives monotonic seconds."""

    def __init__(self, names: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(names)
        self._clock = clock
        # The requests used by address, and the instant of the last one.
        self._used: dict[str, tuple[float, float]] = {}
        self._streams = 0

    async def ServerReflectionInfo(  # noqa: N802 -- the name in the contract of reflection
        self, requests: AsyncIterator[Any], context: Any
    ) -> AsyncIterator[Any]:
        if self._streams >= MOST_STREAMS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"too many streams (max {MOST_STREAMS})")
        self._streams += 1
        try:
            async with asyncio.timeout(STREAM_SECONDS):
                async for answer in super().ServerReflectionInfo(self._within_bounds(requests, context), context):
                    yield answer
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"a stream ends after {STREAM_SECONDS:g} s")
        finally:
            self._streams -= 1

    async def _within_bounds(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        address = address_of(context.peer())
        async for request in requests:
            if request.ByteSize() > MOST_BYTES:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"a request has at most {MOST_BYTES} bytes")
            if not self._allow(address):
                limit = f"at most {REQUESTS_PER_SECOND:g} requests a second of one address"
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, limit)
            yield request

    def _allow(self, address: str) -> bool:
        at = self._clock()
        used, since = self._used.pop(address, (0.0, at))
        used = max(0.0, used - REQUESTS_PER_SECOND * (at - since)) + 1
        allowed = used <= BURST
        self._used[address] = (used if allowed else used - 1, at)
        if len(self._used) > _MOST_ADDRESSES:
            del self._used[next(iter(self._used))]
        return allowed


def address_of(peer: str) -> str:
    """The address of a peer such as `ipv4:10.0.0.1:5000`, without the port."""
    return peer.rpartition(":")[0] if peer.startswith("ip") else peer
