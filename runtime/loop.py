"""The event loop of a service: uvloop's where the package is installed, else asyncio's, as on Windows."""

import asyncio
import functools
import socket
from asyncio import AbstractEventLoop
from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from typing import Any, TypeVar, cast

Result = TypeVar("Result")
# More than the socket pair of gRPC holds.
_MOST_EVENTS = 4096


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run the coroutine to its end in a new event loop; the coroutine's result."""
    with asyncio.Runner(loop_factory=new) as runner:
        return runner.run(main)


def new() -> AbstractEventLoop:
    """A new event loop, with one turn of the loop for all events of gRPC that have come.

    A thread of gRPC writes one byte into a socket pair for each event of grpc.aio, and waits while 278 bytes are
    unread. grpc.aio reads one byte in a turn of the loop. After a burst of events, a loop with other work would take
    one event a turn, and calls would wait for seconds.
    """
    made: Any
    if find_spec("uvloop") is None:
        made = asyncio.new_event_loop()
    else:
        import uvloop

        made = uvloop.new_event_loop()
    add = made.add_reader

    def add_reader(fd: Any, callback: Callable[..., Any], *args: Any) -> None:
        if isinstance(callback, functools.partial) and callback.func.__module__ == "grpc._cython.cygrpc":
            callback = functools.partial(_handle, fd, callback)
        add(fd, callback, *args)

    made.add_reader = add_reader
    return cast("AbstractEventLoop", made)


def _handle(events: socket.socket, handle: Callable[[], None]) -> None:
    """Call gRPC's `handle` once for all events: it reads one byte, and takes every event whose byte is written."""
    unread = len(events.recv(_MOST_EVENTS, socket.MSG_PEEK))
    if unread > 1:
        events.recv(unread - 1)
    handle()
