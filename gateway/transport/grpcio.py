"""The default transport `grpcio`: grpc.aio serves every RPC, with TLS when certificate files are set.

Owns the grpc.aio server, its options, and the way of a result into a grpc.aio call.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeAlias, cast

import grpc
from google.rpc import status_pb2

from gateway.access.caller import Caller
from gateway.calls.completion import Result
from gateway.calls.servicer import Servicer
from gateway.calls.slow_checks import SlowChecks
from gateway.transport.crowds import Crowds
from gateway.transport.interface import LIMITS, METADATA_BYTES, Register
from gateway.transport.resets import Resets, Turn
from market_inference.contract import codes, deadline, metadata, methods
from market_inference.contract.errors import DeadlineExceededError, NotImplementedYetError
from market_inference.contract.methods import Method
from runtime import tls
from runtime.listen import NO_COMPRESSION, is_unix, refuse_taken

# The time for calls in flight on a connection that the server asks the client to renew.
CONNECTION_GRACE_SECONDS = 300
# The time for the TLS handshake, and for the first frame of HTTP/2.
HANDSHAKE_SECONDS = 10.0
# The time for a request to come after the metadata of its call.
REQUEST_SECONDS = 10.0
# A client that pings an idle connection more often than this is disconnected (ENHANCE_YOUR_CALM).
PING_SECONDS = 10.0
# The share of the event loop's time for refusing callers without a valid credential. gRPC's part of a refusal, which is
# about as long, comes on top.
STRANGERS_SHARE = 0.02
# Calls that wait to be refused; a further call is refused at once.
MOST_STRANGERS = 4_096
# grpc.aio servers on one port. gRPC hands the calls of a method over one after the other, and a call waits behind all
# that have come before: so only behind those of connections that the kernel has given to the same server.
QUEUES = 16
# What gRPC takes of a call that nobody reads yet. Smaller requests come in one round trip.
WINDOW_BYTES = 128 << 10
# Calls of one queue that have come and are not handled yet: above the first number some are dropped, above the second
# all. A connection may have 100. A queue of all connections holds more than one of QUEUES.
PENDING_CALLS = (512, 1_024)
PENDING_CALLS_ALONE = (4_096, 8_192)


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
        self._servicer = servicer
        self._register = register
        self._files = files
        self._share_port = share_port
        self._options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", methods.MAX_REQUEST_BYTES),
            ("grpc.max_send_message_length", -1),
            NO_COMPRESSION,
            # The probe would raise the window of calls that nobody reads, also of strangers, to 8 MiB. The window of a
            # call that is read is as large as its message, up to 1 MiB.
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
            ("grpc.http2.min_ping_interval_without_data_ms", int(PING_SECONDS * 1000)),
            ("grpc.http2.max_ping_strikes", 2),
            # Without this option gRPC allows a ping in two hours while a connection has no call.
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.server_handshake_timeout_ms", int(HANDSHAKE_SECONDS * 1000)),
            # A call counts until its memory is freed: else calls that are reset at once have no limit. Without headroom
            # for calls that are answered and not freed yet, a client that sends its next call at once would be above
            # the limit unknowingly, and the call would end as UNAVAILABLE.
            ("grpc.http.overload_protection", 1),
            ("grpc.http2.max_deallocating_streams", LIMITS["max_concurrent_streams"]),
            ("grpc.max_metadata_size", METADATA_BYTES[0]),
            ("grpc.absolute_max_metadata_size", METADATA_BYTES[1]),
            *((f"grpc.{name}", value) for name, value in LIMITS.items()),
        ]
        # Without a maximum age the option must be absent: gRPC takes 0 for a connection that is too old at once.
        if max_connection_age:
            self._options.append(("grpc.max_connection_age_ms", int(max_connection_age * 1000)))
            self._options.append(("grpc.max_connection_age_grace_ms", CONNECTION_GRACE_SECONDS * 1000))
        self._strangers = _Strangers(servicer)
        self._resets = Resets()
        self._crowds = Crowds()
        self._servers: list[grpc.aio.Server] = []

    def add_port(self, address: str) -> int:
        """Bind QUEUES servers to the port; one server to a Unix socket, and where the system is not Linux.

        Other systems have no port for two sockets, or give all connections to one of the sockets.
        """
        count = QUEUES if sys.platform == "linux" and not is_unix(address) else 1
        if count > 1 and not self._share_port:
            refuse_taken(address)
        port = 0
        for _ in range(count):
            server = self._server(alone=count == 1)
            port = tls.add_port(server, self._files, address)
            self._servers.append(server)
            address = f"{address.rpartition(':')[0]}:{port}"
        return port

    def _server(self, *, alone: bool) -> grpc.aio.Server:
        pending = PENDING_CALLS_ALONE if alone else PENDING_CALLS
        options = [
            ("grpc.so_reuseport", int(self._share_port or not alone)),
            ("grpc.server.max_pending_requests", pending[0]),
            ("grpc.server.max_pending_requests_hard_limit", pending[1]),
        ]
        server = grpc.aio.server(options=[*self._options, *options])
        # gRPC has a queue for each registered method. Calls of other methods, or of none, wait in other queues.
        handlers = _handlers(self._servicer, self._strangers, self._resets, self._crowds)
        server.add_registered_method_handlers(methods.SERVICE.full_name, handlers)
        self._register(server)
        server.add_generic_rpc_handlers((_Unknown(self._strangers),))
        return server

    async def start(self) -> None:
        for server in self._servers:
            await server.start()

    async def stop(self, grace: float) -> None:
        self._strangers.close()
        self._resets.close()
        await asyncio.gather(*(server.stop(grace) for server in self._servers))


def _handlers(
    servicer: Servicer, strangers: "_Strangers", resets: Resets, crowds: Crowds
) -> dict[str, "grpc.RpcMethodHandler[Any, Any]"]:
    """The public RPCs by name, as gRPC handlers that pass bytes, so that no message is parsed twice.

    Unary RPCs have handlers for a stream of requests: such a handler runs before the request has come, so that the
    refusal of a stranger needs no request, and the wait for a request has a time limit.
    """
    unary = _unary(servicer, _Requests(), crowds)
    streamed = {"Stream": servicer.stream, "Watch": servicer.watch}
    made: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for name, method in methods.METHODS.items():
        if serve := streamed.get(name):
            made[name] = grpc.stream_stream_rpc_method_handler(_known(servicer, method, serve, strangers, resets))
        else:
            made[name] = grpc.stream_unary_rpc_method_handler(_known(servicer, method, unary, strangers, resets))
    return made


class _Unknown(grpc.GenericRpcHandler):
    """The last handler: refuses RPCs that no service has."""

    def __init__(self, strangers: "_Strangers") -> None:
        async def handler(_: Any, context: Any) -> None:
            await strangers.end(context, lambda: self._refusal(context))

        self._handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(handler)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        return self._handler

    def _refusal(self, context: Any) -> Result:
        request_id = metadata.request_id(dict(context.invocation_metadata() or ()).get(metadata.REQUEST_ID))
        status = NotImplementedYetError("the service has no RPC of this name").status(request_id)
        trailers = ((metadata.REQUEST_ID, request_id), (metadata.STATUS_DETAILS, status.SerializeToString()))
        return Result(b"", trailers, status)


class _Strangers:
    """Refuses calls by their metadata, in turns between addresses.

    Calls without a credential cost their sender nothing, and could keep the event loop busy with refusals. Until its
    turn a call takes one of the places for calls of its connection, and as few objects as possible: calls of others
    wait behind all calls that have come before.
    """

    def __init__(self, servicer: Servicer) -> None:
        self._servicer = servicer
        self._turns = SlowChecks(STRANGERS_SHARE)
        self._waiting = 0
        self._most = MOST_STRANGERS

    def close(self) -> None:
        """Refuse all calls that wait, and from now on every call at once: a wait would delay the server's end."""
        self._most = 0
        self._turns.finish()

    def refuse(self, method: Method, caller: Caller, context: Any) -> Awaitable[NoReturn]:
        """Refuse a call of a caller that is not known."""

        def refusal() -> Result:
            ends: list[Result | None] = []
            self._servicer.open(method, caller, context.time_remaining(), context.peer, ends.append)
            return cast("Result", ends[0])

        return self.end(context, refusal)

    async def end(self, context: Any, refusal: Callable[[], Result]) -> NoReturn:
        """End a call with the refusal, which is made in the turn of the call's address."""
        if self._waiting < self._most:
            self._waiting += 1
            try:
                result = await self._turns.later(context.peer().rpartition(":")[0], refusal, Turn())
            finally:
                self._waiting -= 1
        else:
            result = refusal()
        await codes.end(context, cast("status_pb2.Status", result.status), result.trailers)


Serve: TypeAlias = Callable[[Method, Caller, Any], Awaitable[Any]]
"""Serves a call of a known caller, by the call's context; the response's bytes, or None for a method that streams."""


def _known(servicer: Servicer, method: Method, serve: Serve, strangers: _Strangers, resets: Resets) -> Any:
    """The handler of a method: refuses callers that are not known, and lets the calls of slow clients wait."""

    async def handler(_: Any, context: Any) -> Any:
        caller = servicer.caller(tuple(context.invocation_metadata() or ()))
        if not caller.known:
            await strangers.refuse(method, caller, context)
        client, reset = caller.admitted().name, False
        if (turn := resets.turn(client)) is not None:
            await turn
            return await serve(method, caller, context)
        try:
            return await serve(method, caller, context)
        except asyncio.CancelledError:
            reset = True
            raise
        finally:
            resets.ended(client, reset=reset)

    return handler


def _unary(servicer: Servicer, requests: "_Requests", crowds: Crowds) -> Serve:
    async def serve(method: Method, caller: Caller, context: Any) -> bytes:
        client = caller.admitted().name
        begins = crowds.enter(client)
        try:
            if begins is not None:
                await begins
            return await answer(method, caller, context)
        finally:
            crowds.leave(client)

    async def answer(method: Method, caller: Caller, context: Any) -> bytes:
        loop = asyncio.get_running_loop()
        finished: asyncio.Future[Result] = loop.create_future()

        def respond(result: Result | None) -> None:
            if not finished.done():  # done when gRPC has cancelled the call
                finished.set_result(result) if result is not None else finished.cancel()

        call = servicer.open(method, caller, context.time_remaining(), context.peer, respond)
        # Called when the answer has been written, as far as the client's flow control lets it out, or the call is lost.
        # A context keeps its callbacks, and is part of a reference cycle: the callback lets go of the call.
        answering = [call]
        context.add_done_callback(lambda _: answering.pop().release())
        try:
            if not call.finished:
                try:
                    servicer.start(call, await requests.read(context))
                except DeadlineExceededError as error:
                    call.finish(error)
            result = await finished
        except asyncio.CancelledError:
            call.cancel()
            raise
        if result.status is not None:
            await codes.end(context, result.status, result.trailers)
        context.set_trailing_metadata(result.trailers)
        return result.response

    return serve


class _Requests:
    """Unary calls whose request has not come yet. One timer looks after all of them: a timer for each would cost more
    than the rest of a call.
    """

    def __init__(self) -> None:
        # The handler's task, and the instant after which the request is late; None once the task is told so.
        self._waiting: dict[asyncio.Task[Any], float | None] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def read(self, context: Any) -> bytes:
        """The request of a call, in its bytes. Raises DeadlineExceededError when no request comes in time."""
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._waiting[task] = deadline.after(REQUEST_SECONDS)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(REQUEST_SECONDS / 4, self._end_late)
        try:
            raw = await context.read()
            if not isinstance(raw, bytes):
                # The client has left, or has half-closed the call: gRPC cancels the task, or the timer ends the wait.
                await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            if self._waiting[task] is not None:
                raise
            task.uncancel()
            late = f"no request came within {REQUEST_SECONDS:g} s of opening the call"
            raise DeadlineExceededError(late) from None
        finally:
            del self._waiting[task]
        return cast("bytes", raw)

    def _end_late(self) -> None:
        self._timer = None
        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(REQUEST_SECONDS / 4, self._end_late)
        now = deadline.now()
        for task, late in self._waiting.items():
            if late is not None and now >= late:
                self._waiting[task] = None
                task.cancel()
