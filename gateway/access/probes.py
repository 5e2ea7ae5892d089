"""gRPC health, which anyone may use without a credential: bounded in bytes, in time, and in reads at once.

Owns the bounds. The answers are runtime/health.py's. While a request is read, gRPC holds up to 16 MiB of the request,
so that few requests of an address are read at once; of the others gRPC holds the flow-control window.
"""

import asyncio
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
_SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"]


class Probes(grpc.GenericRpcHandler):
    """A Health as handlers of gRPC, which read the request within the bounds."""

    def __init__(self, health: Health) -> None:
        self._reads: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._table: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        kinds: dict[bool, Any] = {
            False: grpc.stream_unary_rpc_method_handler,
            True: grpc.stream_stream_rpc_method_handler,
        }
        for method in _SERVICE.methods:
            request = getattr(health_pb2, method.input_type.name)
            self._table[f"/{_SERVICE.full_name}/{method.name}"] = kinds[method.server_streaming](
                self._handler(getattr(health, method.name), request),
                response_serializer=lambda answer: answer.SerializeToString(),
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

    async def _read(self, context: Any) -> bytes:
        """The bytes of the request; empty where the client sends none."""
        turn = self._reads.setdefault(address_of(context.peer()), asyncio.Semaphore(MOST_READS))
        try:
            async with asyncio.timeout(READ_SECONDS), turn:
                raw = await context.read()
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"no request came within {READ_SECONDS:g} s")
        return raw if isinstance(raw, bytes) else b""
