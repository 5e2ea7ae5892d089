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
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import repeat
from typing import Any, TypeAlias

from gateway.access.caller import Metadata
from gateway.calls.call import Call
from gateway.calls.completion import Result
from gateway.calls.servicer import Servicer
from gateway.transport.grpcio import GrpcioTransport
from gateway.transport.interface import LIMITS, METADATA_BYTES, Register
from market_inference.contract import deadline, methods
from market_inference.contract.methods import Method
from runtime import tls

Details: TypeAlias = tuple[Metadata, str, float | None]
"""A call's metadata, the client's address, and the seconds until the client's deadline."""

_EVENTS_AT_ONCE = 256
# Of many calls, this many start in one loop turn, so that a replica has the first frame before the others start.
_CALLS_AT_ONCE = 32
# close() drops bytes that a socket has not taken yet, and the native server does not report when the last answer left.
_LAST_BYTES_SECONDS = 0.2
# More threads would compete with the event loop for the cores.
_IO_THREADS = 1


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
        # Received events with the time of their receipt. While there are any, a _start_calls() is scheduled.
        self._received: deque[tuple[float, Any]] = deque()
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
        idle = not self._received
        self._received.extend(zip(repeat(deadline.now()), events))
        if idle:
            # At the end of this loop turn: calls whose events arrive in one turn start together, and are merged.
            loop.call_soon(self._start_calls, loop)

    def _start_calls(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start some of the calls received, and the others in later loop turns."""
        waiting = len(self._received)
        try:
            # A flood of calls starts at once: the limits in flight then count, and refuse, all of them.
            self._start_some(waiting if waiting > _EVENTS_AT_ONCE else min(waiting, _CALLS_AT_ONCE))
        finally:
            if self._received:
                loop.call_soon(self._start_calls, loop)

    def _start_some(self, count: int) -> None:
        cancelled, now = self._native.EVENT_CANCEL, deadline.now()
        with self._servicer.together():
            for _ in range(count):
                at, (kind, call_id, number, raw, _, details) = self._received.popleft()
                if kind != cancelled:
                    self._start_one(call_id, self._methods[number], raw, details, now - at)
                elif call := self._calls.get(call_id):
                    call.cancel()

    def _start_one(self, call_id: int, method: Method, raw: bytes, details: Details, waited: float) -> None:
        received, peer, timeout = details
        if timeout is not None:
            timeout -= waited
        caller = self._servicer.caller(received)
        call = self._servicer.open(method, caller, timeout, lambda: peer, partial(self._respond, call_id))
        self._servicer.start(call, raw)
        if not call.finished:
            self._calls[call_id] = call

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
