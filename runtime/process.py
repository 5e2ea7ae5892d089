"""The life of a service's process: start, ready line, signals and drain, for the gateway and the inference service.

Owns signals, the limit of open files, and the settings of malloc and of the garbage collector. A server owns start and
stop.
"""

import asyncio
import gc
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol, TypeVar

from runtime import listen, malloc
from runtime.logs import fields

_SIGNAL_SECONDS: Final = 0.5
# After the drain, the threads of pools have this time. Python would wait for a thread that hangs for ever.
_END_SECONDS: Final = 3.0
# The most open files of a process on macOS, which states no limit and refuses it.
_OPEN_MAX: Final = 10_240
T = TypeVar("T")


class Server(Protocol):
    """A server; start() listens and sets the addresses."""

    address: str
    metrics_address: str

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


def ending_signals() -> list[signal.Signals]:
    """The signals after which a process drains and ends: SIGTERM, SIGINT, and SIGHUP unless it is ignored.

    SIGHUP comes when the terminal or the session is closed; nohup ignores it. It reloads nothing: files of keys and
    certificates are read again by themselves.
    """
    found = [signal.SIGTERM, signal.SIGINT]
    hang_up: signal.Signals | None = getattr(signal, "SIGHUP", None)  # not on Windows
    if hang_up is not None and signal.getsignal(hang_up) is not signal.SIG_IGN:
        found.append(hang_up)
    return found


async def serve(make: Callable[[], Server], log: logging.Logger) -> None:
    """Make a server on the event loop, serve until one of ending_signals(), drain. Raises the errors of start()."""
    malloc.keep_freed()
    _allow_files()
    stop = asyncio.Event()
    for number in ending_signals():
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = make()
    await server.start()
    # A full pass of the garbage collector over the imported modules takes 30 to 160 ms: too long a delay for a request.
    # freeze() excludes the modules, and some hundred objects of garbage, from every later pass.
    gc.freeze()
    gc.enable()
    listen.announce(listen=server.address, metrics=server.metrics_address)
    log.info("listening", extra=fields(listen=server.address, metrics=server.metrics_address))
    await stop.wait()
    log.info("draining")
    await server.stop()
    log.info("stopped")
    ending = threading.Timer(_END_SECONDS, _end, [log])
    ending.daemon = True
    ending.start()


def _end(log: logging.Logger) -> None:
    """End the process without its threads: one hangs, such as in a call to the system for a mount that is away."""
    hanging = [thread.name for thread in threading.enumerate() if not thread.daemon]
    log.warning("ended with threads that hang", extra=fields(threads=hanging))
    logging.shutdown()
    os._exit(0)


def _allow_files() -> None:
    """As many open files, and with them connections, as the system allows: its default may be 1,024."""
    if sys.platform != "win32":
        import resource

        now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        for files in (most, max(now, _OPEN_MAX)):
            with suppress(ValueError, OSError):  # more than the system allows: the limit stays as it is
                resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
                return


def connections(most: int) -> int:
    """`most`, or half of the files that the process may open: the other half is for stores, machines and models."""
    if sys.platform == "win32":
        return most
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if files == resource.RLIM_INFINITY else min(most, files // 2)


def next_of(items: "queue.SimpleQueue[T]") -> T:
    """The next item, for a main thread with signal handlers in Python.

    The handler of a signal that comes just before an endless wait would run after the wait.
    """
    while True:
        with suppress(queue.Empty):
            return items.get(timeout=_SIGNAL_SECONDS)
