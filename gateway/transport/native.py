"""The transport `native`: unary methods with HTTP/2 outside the GIL (pygrpc-native).

Every other method goes to a grpcio transport behind it, on a Unix socket. It speaks no TLS, closes no connection by age
and holds a message whole before its size can be refused. It is for places where something that ends TLS and bounds
bodies stands in front of it.

Owns the native server, its thread, and in which order its events become calls.
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

from gateway.access.caller import Sent
from gateway.calls.pipeline import Serving
from gateway.calls.servicer import Ended, Servicer
from gateway.transport.grpcio import GrpcioTransport
from gateway.transport.interface import LIMITS, METADATA_BYTES, Register
from market_inference.contract import deadline, methods
from market_inference.contract.errors import DrainingError
from market_inference.contract.methods import Method
from runtime import tls

Details: TypeAlias = tuple[Sent, str, float | None]
"""What comes with a call by the native transport: metadata, peer, the seconds that its caller waits."""

_EVENTS_AT_ONCE = 256
# Of many calls, some are begun and on their way to a replica before the next ones: so the processes work side by side.
# The turns are those from a call's first step to its frame.
_CALLS_AT_ONCE = 32
_TURNS_TO_LEAVE = 3
# close() cuts off what a socket has not taken yet, and nothing tells when the last answer has left.
_LAST_BYTES_SECONDS = 0.2
# More of them would compete with the event loop for the cores.
_IO_THREADS = 1


class NativeTransport:
    """Unary methods outside the GIL, the rest by a GrpcioTransport that it hands whole connections' calls to."""

    def __init__(self, servicer: Servicer, register: Register, *, share_port: bool) -> None:
        """Raises ModuleNotFoundError where pygrpc-native is not installed."""
        # Imported here, since only this setting needs it.
        self._native: Any = importlib.import_module("pygrpc_native")
        self._servicer = servicer
        self._share_port = share_port
        self._methods = [method for method in methods.METHODS.values() if not method.streams]
        self._behind = GrpcioTransport(servicer, register, files=tls.Files(), share_port=False, max_connection_age=0)
        self._folder = ""
        # Calls and cancels that wait to be begun, each with when it came. While there are any, a _begin() is due.
        self._came: deque[tuple[float, Any]] = deque()
        self._calls: dict[int, Serving] = {}
        self._stopping = False
        # Set while stopping, once no call is left.
        self._idle = asyncio.Event()
        self._front: Any = None

    def add_port(self, address: str) -> int:
        self._front = self._native.NativeGrpcFront(
            address,
            [(method.path, False) for method in self._methods],
            io_threads=_IO_THREADS,
            call_details=True,
            max_metadata_size=METADATA_BYTES[1],
            reuse_port=self._share_port,
            **LIMITS,
        )
        return int(self._front.bound_port)

    async def start(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="market-gateway-")
        socket = f"{self._folder}/front.sock"
        self._behind.add_port(f"unix:{socket}")
        await self._behind.start()
        self._front.set_fallback(socket)
        self._front.start()
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._receive, args=(loop,), name="front", daemon=True).start()

    def _receive(self, loop: asyncio.AbstractEventLoop) -> None:
        """A thread's life: hand what has come in to the event loop, many calls at once when many wait."""
        while (events := self._front.recv_batch_details(_EVENTS_AT_ONCE)) is not None:
            try:
                loop.call_soon_threadsafe(self._take, loop, events)
            except RuntimeError:  # the loop has been closed without stop()
                self._front.close()
                return

    def _take(self, loop: asyncio.AbstractEventLoop, events: Sequence[Any]) -> None:
        idle = not self._came
        self._came.extend(zip(repeat(deadline.now()), events))
        if idle:
            self._begin(loop, 0)

    def _begin(self, loop: asyncio.AbstractEventLoop, turns: int) -> None:
        """Begin some of the calls that have come in, after so many turns of the loop."""
        if turns:
            loop.call_soon(self._begin, loop, turns - 1)
            return
        waiting = len(self._came)
        try:
            # A crowd is not let in bit by bit: it is counted against the limits, and refused by them, at once.
            self._begin_some(waiting if waiting > _EVENTS_AT_ONCE else min(waiting, _CALLS_AT_ONCE))
        finally:
            if self._came:
                self._begin(loop, _TURNS_TO_LEAVE)

    def _begin_some(self, count: int) -> None:
        cancelled, now = self._native.EVENT_CANCEL, deadline.now()
        for _ in range(count):
            came, (kind, call_id, number, raw, _, details) = self._came.popleft()
            if kind == cancelled:
                if call := self._calls.get(call_id):
                    call.cancel()
            elif self._stopping:
                self._tell(call_id, _refusal())
            else:
                self._begin_one(call_id, self._methods[number], raw, details, now - came)

    def _begin_one(self, call_id: int, method: Method, raw: bytes, details: Details, waited: float) -> None:
        sent, peer, left = details
        if left is not None:
            left -= waited
        call = self._servicer.unary(method, sent, left, lambda: peer, raw, partial(self._end, call_id))
        if call is not None:
            self._calls[call_id] = call

    def _end(self, call_id: int, ended: Ended | None) -> None:
        self._calls.pop(call_id, None)
        if self._stopping and not self._calls:
            self._idle.set()
        if ended is not None:
            self._tell(call_id, ended)

    def _tell(self, call_id: int, ended: Ended) -> None:
        if ended.status is None:
            self._front.respond(call_id, ended.body, None, ended.trailers)
        else:
            self._front.fail(call_id, ended.status.code, ended.status.message, ended.trailers)

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
        await asyncio.to_thread(self._front.close)
        shutil.rmtree(self._folder, ignore_errors=True)


def _refusal() -> Ended:
    status = DrainingError("the gateway is draining", retry_after=0.1).status()
    return Ended(b"", (), status)
