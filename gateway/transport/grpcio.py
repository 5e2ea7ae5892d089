"""The default transport `grpcio`: grpc.aio serves every RPC, with TLS when certificate files are set.

Owns the grpc.aio server, its options, and the way of a result into a grpc.aio call.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from gateway.calls.completion import Result
from gateway.calls.servicer import Servicer
from gateway.transport.interface import LIMITS, METADATA_BYTES, Register
from market_inference.contract import codes, methods
from market_inference.contract.methods import Method
from runtime import tls

# The time for calls in flight on a connection that the server asks the client to renew.
CONNECTION_GRACE_SECONDS = 300


class GrpcioTransport:
    """Every RPC by grpc.aio. `max_connection_age` is in seconds, 0 for none."""

    def __init__(
        self,
        servicer: Servicer,
        register: Register,
        *,
        files: tls.Files,
        share_port: bool,
        max_connection_age: float = 0,
    ) -> None:
        self._files = files
        options = [
            ("grpc.max_receive_message_length", methods.MAX_REQUEST_BYTES),
            ("grpc.max_send_message_length", -1),
            # A client that pings more often than this is disconnected (ENHANCE_YOUR_CALM).
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.http2.max_ping_strikes", 2),
            ("grpc.max_metadata_size", METADATA_BYTES[0]),
            ("grpc.absolute_max_metadata_size", METADATA_BYTES[1]),
            ("grpc.so_reuseport", int(share_port)),
            *((f"grpc.{name}", value) for name, value in LIMITS.items()),
        ]
        # Without a maximum age the option must be absent: gRPC takes 0 for a connection that is too old at once.
        if max_connection_age:
            options.append(("grpc.max_connection_age_ms", int(max_connection_age * 1000)))
            options.append(("grpc.max_connection_age_grace_ms", CONNECTION_GRACE_SECONDS * 1000))
        self._server = grpc.aio.server(options=options)
        self._server.add_generic_rpc_handlers((handlers(servicer),))
        register(self._server)

    def add_port(self, address: str) -> int:
        return tls.add_port(self._server, self._files, address)

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, grace: float) -> None:
        await self._server.stop(grace)


def handlers(servicer: Servicer) -> grpc.GenericRpcHandler:
    """The public RPCs as gRPC handlers that pass bytes, so that no message is parsed twice."""
    table: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {}
    for method in methods.METHODS.values():
        if method.name == "Stream":
            table[method.name] = grpc.stream_stream_rpc_method_handler(_streaming(servicer.stream, method))
        elif method.name == "Watch":
            table[method.name] = grpc.stream_stream_rpc_method_handler(_streaming(servicer.watch, method))
        else:
            table[method.name] = grpc.unary_unary_rpc_method_handler(_unary(servicer, method))
    return grpc.method_handlers_generic_handler(methods.SERVICE.full_name, table)


def _unary(servicer: Servicer, method: Method) -> Any:
    async def handler(raw: bytes, context: Any) -> bytes:
        finished: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        def respond(result: Result | None) -> None:
            if not finished.done():  # done when gRPC has cancelled the call
                finished.set_result(result) if result is not None else finished.cancel()

        received = tuple(context.invocation_metadata() or ())
        call = servicer.unary(method, received, context.time_remaining(), context.peer, raw, respond)
        # Called when the answer has been written, as far as the client's flow control lets it out, or the call is lost.
        context.add_done_callback(lambda _: call.release())
        try:
            result = await finished
        except asyncio.CancelledError:
            call.cancel()
            raise
        if result.status is not None:
            await codes.end(context, result.status, result.trailers)
        context.set_trailing_metadata(result.trailers)
        return result.response

    return handler


def _streaming(serve: Callable[[Method, Any], Awaitable[None]], method: Method) -> Any:
    async def handler(_: Any, context: Any) -> None:  # reads and writes through the context
        await serve(method, context)

    return handler
