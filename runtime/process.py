"""A service's process from its start to its end: what the gateway and the inference service do alike.

Owns the ready line, the signals and the end by draining. What starting and stopping mean is each server's.
"""

import asyncio
import gc
import logging
import signal
from collections.abc import Callable
from typing import Protocol

from runtime import listen, malloc
from runtime.logs import fields


class Server(Protocol):
    """Listens once started; the addresses are set by then."""

    address: str
    metrics_address: str

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


async def serve(make: Callable[[], Server], log: logging.Logger) -> None:
    """Make a server on the event loop and serve until SIGTERM or SIGINT, then drain. Raises what start() raises."""
    malloc.keep_freed()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = make()
    await server.start()
    # To walk through all that has been imported takes Python 50 to 160 ms, in the middle of some request: never again.
    gc.collect()
    gc.freeze()
    listen.announce(listen=server.address, metrics=server.metrics_address)
    log.info("listening", extra=fields(listen=server.address, metrics=server.metrics_address))
    await stop.wait()
    log.info("draining")
    await server.stop()
    log.info("stopped")
