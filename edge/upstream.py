"""The edge's connection to the gateway.

Owns the gRPC channels, made by the Python client's rules, and the way from failed calls to typed errors. Every call
carries the credential of its own caller.
"""

import asyncio
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, status_pb2

from edge.caller import Caller
from edge.config import Config
from edge.errors import ClientGoneError
from market_inference import errors
from market_inference.client.channels import Channels
from market_inference.client.connection import TLS, Connection
from market_inference.client.session import Record
from market_inference.client.watch import AsyncWatch
from market_inference.contract.errors import RemoteError, is_sound
from market_inference.contract.metadata import STATUS_DETAILS
from market_inference.contract.methods import Method
from runtime.watcher import LookError

READY = grpc.ChannelConnectivity.READY
# Updates without a reader, and bars without an answer, that the edge holds for one watch.
_WATCH_BUFFER = 2
_WATCH_WINDOW = 8
_WATCH_RECONNECT_SECONDS = 20.0
# Less than a watcher waits for a look.
_RENEWAL_SECONDS = 20.0


class Upstream:
    """Belongs to one event loop. Raises market_inference.errors.ArgumentError."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._connection = _connection(config)
        self._channel = self._connection.aio_channel()
        self._channels = Channels(self._connection.aio_channel, self._channel)

    async def renew(self) -> None:
        """Connect anew, by the present content of the TLS files, for further calls.

        Until the new connection is ready, the one before serves. Raises ArgumentError, LookError.
        """
        connection = _connection(self._config)
        channel = connection.aio_channel()
        try:
            async with asyncio.timeout(_RENEWAL_SECONDS):
                await channel.channel_ready()
        except BaseException as error:
            await channel.close()
            if isinstance(error, TimeoutError):
                raise LookError(f"no connection to the gateway by the new files in {_RENEWAL_SECONDS:g} s") from None
            raise
        self._connection, self._channel = connection, channel
        self._channels.replace(connection.aio_channel, channel)

    @property
    def ready(self) -> bool:
        """Whether the channel is connected. Starts to connect when it is not."""
        return self._channel.get_state(try_to_connect=True) is READY

    async def wait_ready(self) -> None:
        """Return when the channel is connected."""
        while (state := self._channel.get_state(try_to_connect=True)) is not READY:
            await self._channel.wait_for_state_change(state)

    async def close(self) -> None:
        for channel in self._channels.close():
            await channel.close()

    async def call(self, method: Method, message: Message, caller: Caller, timeout: float) -> Message:
        """The response of a unary RPC. Raises RemoteError."""
        try:
            with self._channels.stub() as stub:
                response: Message = await _start(stub, method, message, caller, timeout)
        except grpc.aio.AioRpcError as failure:
            raise remote(failure) from None
        return response

    async def call_until_gone(self, method: Method, message: Message, caller: Caller, timeout: float) -> Message:
        """As call(), after the request's body is read. The departure of the client cancels the call.

        Raises RemoteError, ClientGoneError.
        """
        with self._channels.stub() as stub:
            call = _start(stub, method, message, caller, timeout)
            departing = asyncio.create_task(caller.departed())
            departing.add_done_callback(lambda _: call.cancel())
            try:
                response: Message = await call
            except grpc.aio.AioRpcError as failure:
                raise remote(failure) from None
            except asyncio.CancelledError:
                if departing.done():
                    raise ClientGoneError from None
                raise
            finally:
                departing.cancel()
        return response

    def watch(self, record: Record, caller: Caller, *, latest: bool) -> AsyncWatch:
        """A live session of the caller, continued on another replica when its own is lost."""
        return AsyncWatch(
            self._channels,
            Connection(self._connection.target, caller.key, None),
            record,
            _WATCH_RECONNECT_SECONDS,
            latest,
            request_id=caller.request_id,
            window=_WATCH_WINDOW,
            buffer=_WATCH_BUFFER,
        )


def _connection(config: Config) -> Connection:
    tls = None
    if config.gateway_tls or config.gateway_tls_ca or config.gateway_tls_certificate:
        tls = TLS(config.gateway_tls_ca, config.gateway_tls_certificate, config.gateway_tls_key)
    return Connection(config.gateway, "", tls)


def _start(stub: Any, method: Method, message: Message, caller: Caller, timeout: float) -> Any:
    return getattr(stub, method.name)(message, timeout=timeout, metadata=caller.metadata)


def remote(failure: grpc.aio.AioRpcError) -> RemoteError:
    """The gateway's error, or gRPC's own as UNAVAILABLE or DEADLINE_EXCEEDED."""
    for key, value in failure.trailing_metadata() or ():
        if key == STATUS_DETAILS and isinstance(value, bytes):
            with suppress(DecodeError):  # a proxy cut the bytes: the code of the call remains
                if is_sound(status := status_pb2.Status.FromString(value)):
                    return RemoteError(status)
    number, _ = failure.code().value
    # gRPC's own text holds addresses of the inside.
    texts = {
        code_pb2.DEADLINE_EXCEEDED: errors.TOO_LATE,
        code_pb2.UNAVAILABLE: "the gateway does not answer; try again",
    }
    return RemoteError(status_pb2.Status(code=number, message=texts.get(number, "the gateway refused the call")))
