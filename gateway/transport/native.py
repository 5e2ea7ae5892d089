"""The transport `native`: unary RPCs with HTTP/2 outside the GIL (pygrpc-native).

All other RPCs are passed to a grpcio transport behind the native server, on a Unix socket. The native server has no TLS
and no maximum connection age, and a message is in memory before its size can be refused. So this transport needs a
proxy in front that ends TLS and limits the size of messages.

Owns the native server, its thread, and the order in which its events become calls.
"""

import asyncio
import importlib
import shutil
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from gateway.access.caller import Caller
from gateway.calls.call import Call
from gateway.calls.completion import Result
from gateway.calls.servicer import Servicer
from gateway.transport.grpcio import GrpcioTransport
from gateway.transport.interface import LIMITS, METADATA_BYTES, Register
from market_inference.contract import deadline, methods
from market_inference.contract.methods import Method
from runtime import tls
from runtime.round_robin import RoundRobin

_EVENTS_AT_ONCE = 256
# Of many calls, this many start in one loop turn, so that a replica has the first frame before the others start.
_CALLS_AT_ONCE = 32
# While waiting calls hold more bytes, more calls start in a turn: the limits of bytes in flight count no waiting call.
_MOST_WAITING_BYTES = 8 << 20
# close() drops bytes that a socket has not taken yet, and the native server does not report when the last answer left.
_LAST_BYTES_SECONDS = 0.2
# More threads would compete with the event loop for the cores.
_IO_THREADS = 1


class _Waiting(NamedTuple):
    """A call that has come and is not started. `timeout`: the seconds from `came` until the client's deadline."""

    came: float
    number: int
    method: Method
    raw: bytes
    caller: Caller
    peer: str
    timeout: float | None


class NativeTransport:
    """Unary RPCs by the native server, all others by a GrpcioTransport behind it."""

    def __init__(self, servicer: Servicer, register: Register, *, share_port: bool) -> None:
        """Raises ModuleNotFoundError where pygrpc-native is not installed."""
        # Imported here, since only this setting needs it.
        self._native: Any = importlib.import_module("pygrpc_native")
        self._servicer = servicer
        self._share_port = share_port
        self._methods = [method for method in methods.METHODS.values() if not method.streams]
        self._behind = GrpcioTransport(servicer, register, files=tls.Files(), share_port=False)
        self._folder = ""
        # Calls that have come. While there are any, a _start_calls() is scheduled.
        self._waiting: RoundRobin[_Waiting] = RoundRobin()
        self._waiting_bytes = 0
        # The numbers of waiting calls, without those that the client has cancelled.
        self._wanted: set[int] = set()
        # Calls in flight, by the native server's number.
        self._calls: dict[int, Call] = {}
        self._stopping = False
        # Set while stopping, once no call is in flight.
        self._idle = asyncio.Event()
        self._server: Any = None

    def add_port(self, address: str) -> int:
        self._server = self._native.NativeGrpcFront(
            address,
            [(method.path, False) for method in self._methods],
            io_threads=_IO_THREADS,
            call_details=True,
            max_metadata_size=METADATA_BYTES[1],
            reuse_port=self._share_port,
            **LIMITS,
        )
        return int(self._server.bound_port)

    async def start(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="market-gateway-")
        socket = f"{self._folder}/front.sock"
        self._behind.add_port(f"unix:{socket}")
        await self._behind.start()
        self._server.set_fallback(socket)
        self._server.start()
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._receive, args=(loop,), name="front", daemon=True).start()

    def _receive(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run in a thread: pass received events to the event loop, many at once when many wait."""
        while (events := self._server.recv_batch_details(_EVENTS_AT_ONCE)) is not None:
            try:
                loop.call_soon_threadsafe(self._take, loop, events)
            except RuntimeError:  # the loop was closed without stop()
                self._server.close()
                return

    def _take(self, loop: asyncio.AbstractEventLoop, events: Sequence[Any]) -> None:
        idle, cancelled, now = not self._waiting, self._native.EVENT_CANCEL, deadline.now()
        for kind, number, method, raw, _, details in events:
            if kind != cancelled:
                self._add(
                    _Waiting(now, number, self._methods[method], raw, self._servicer.caller(details[0]), *details[1:])
                )
            elif call := self._calls.get(number):
                call.cancel()
            else:
                self._wanted.discard(number)
        if idle and self._waiting:
            # At the end of this loop turn: calls whose events arrive in one turn start together, and are merged.
            loop.call_soon(self._start_calls, loop)

    def _add(self, waiting: _Waiting) -> None:
        client = waiting.caller.client
        # Strangers take turns by address.
        name = waiting.peer.rpartition(":")[0] if isinstance(client, Exception) else client.name
        self._waiting.add(name, waiting)
        self._waiting_bytes += len(waiting.raw)
        self._wanted.add(waiting.number)

    def _start_calls(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start some of the waiting calls, and the others in later loop turns."""
        try:
            self._start_some(_CALLS_AT_ONCE)
        finally:
            if self._waiting:
                loop.call_soon(self._start_calls, loop)

    def _start_some(self, count: int) -> None:
        """Start at least `count` calls, where so many wait: one of each client, then the next one of each."""
        now = deadline.now()
        with self._servicer.together():
            while self._waiting and (count > 0 or self._waiting_bytes > _MOST_WAITING_BYTES):
                count -= 1
                waiting = self._waiting.pop()
                self._waiting_bytes -= len(waiting.raw)
                self._start_one(waiting, now - waiting.came)

    def _start_one(self, waiting: _Waiting, waited: float) -> None:
        _, number, method, raw, caller, peer, timeout = waiting
        if timeout is not None:
            timeout -= waited
        call = self._servicer.open(method, caller, timeout, lambda: peer, partial(self._respond, number))
        if number in self._wanted:
            self._wanted.remove(number)
            self._servicer.start(call, raw)
            if not call.finished:
                self._calls[number] = call
        else:
            call.cancel()

    def _respond(self, call_id: int, result: Result | None) -> None:
        call = self._calls.pop(call_id, None)
        if self._stopping and not self._calls:
            self._idle.set()
        if result is not None:
            self._write(call_id, result)
        if call is not None:
            # The native server holds the answer from here; a proxy in front of it must read on.
            call.release()

    def _write(self, call_id: int, result: Result) -> None:
        if result.status is None:
            self._server.respond(call_id, result.response, None, result.trailers)
        else:
            self._server.fail(call_id, result.status.code, result.status.message, result.trailers)

    async def stop(self, grace: float) -> None:
        self._stopping = True
        behind = asyncio.create_task(self._behind.stop(grace))
        while self._waiting:
            self._start_some(_CALLS_AT_ONCE)
        if not self._calls:
            self._idle.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._idle.wait()
        for call in tuple(self._calls.values()):
            call.cancel()
        await self._idle.wait()
        await behind
        await asyncio.sleep(_LAST_BYTES_SECONDS)
        await asyncio.to_thread(self._server.close)
        shutil.rmtree(self._folder, ignore_errors=True)
