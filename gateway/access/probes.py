"""gRPC health, which anyone may use without a credential: bounded in bytes, in time, in reads at once, and in streams.

Owns the bounds. The answers are runtime/health.py's. While a request is read, gRPC holds up to 16 MiB of the request,
so that few requests of an address are read at once; of the others gRPC holds the flow-control window. A stream of Watch
has no end, and takes 15 to 33 kB.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakValueDictionary

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2

from gateway.access.reflection import address_of
from runtime.health import Health

MOST_READS = 8
"""Requests of one address that are read at once; others wait."""
READ_SECONDS = 2.0
"""The time for a request to come, with the wait."""
MOST_BYTES = 1024
MOST_STREAMS = (4096, 256)
"""Streams of Watch in all, and of one address. A client that checks health by itself has one on each connection."""
_SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"]


class Probes(grpc.GenericRpcHandler):
    """A Health as handlers of gRPC, which read the request within the bounds."""

    def __init__(self, health: Health) -> None:
        self._reads: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._streams: Counter[str] = Counter()
        self._table: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for method in _SERVICE.methods:
            request = getattr(health_pb2, method.input_type.name)
            serve, made = getattr(health, method.name), grpc.stream_unary_rpc_method_handler
            if method.server_streaming:
                serve, made = self._bounded(serve), grpc.stream_stream_rpc_method_handler
            self._table[f"/{_SERVICE.full_name}/{method.name}"] = made(
                self._handler(serve, request), response_serializer=lambda answer: answer.SerializeToString()
            )

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        return self._table.get(handler_call_details.method)

    def _handler(self, serve: Callable[[Any, Any], Awaitable[Any]], request: type[Message]) -> Any:
        async def handler(_: Any, context: Any) -> Any:
            raw = await self._read(context)
            if len(raw) > MOST_BYTES:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"a request has at most {MOST_BYTES} bytes")
            try:
                message = request.FromString(raw)
            except DecodeError:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the bytes are not a {request.__name__} message")
            return await serve(message, context)

        return handler

    def _bounded(self, serve: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
        async def stream(message: Any, context: Any) -> None:
            address = address_of(context.peer())
            most, each = MOST_STREAMS
            if self._streams[address] >= each or self._streams.total() >= most:
                limit = f"too many streams of Watch (max {most}, and {each} of one address)"
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, limit)
            self._streams[address] += 1
            try:
                await serve(message, context)
            finally:
                self._streams[address] -= 1
                if not self._streams[address]:
                    del self._streams[address]

        return stream

    async def _read(self, context: Any) -> bytes:
        """The bytes of the request; empty where the client sends none."""
        try:
            async with asyncio.timeout(READ_SECONDS), self._turn(context):
                raw = await context.read()
        except TimeoutError:
            raw = None
        if raw is None:
            # gRPC keeps the error of abort() until a garbage collection. Raised in `except`, it would keep the turn.
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"no request came within {READ_SECONDS:g} s")
        return raw if isinstance(raw, bytes) else b""

    def _turn(self, context: Any) -> asyncio.Semaphore:
        return self._reads.setdefault(address_of(context.peer()), asyncio.Semaphore(MOST_READS))
