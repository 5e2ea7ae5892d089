"""The process: configuration, logs, signals. Everything else is server.py's."""

import asyncio
import logging
import os
import signal
import sys

import uvloop
from pydantic import ValidationError

from inference.config import Config
from inference.server import Server
from wire import listen, logs, tls

log = logging.getLogger("inference")


async def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = Server(config)
    await server.start()
    listen.announce(listen=server.address, metrics=server.metrics_address)
    log.info("listening", extra=logs.fields(listen=server.address, metrics=server.metrics_address))
    await stop.wait()
    log.info("draining")
    await server.stop()
    log.info("stopped")


def main() -> None:
    try:
        config = Config()
    except ValidationError as error:
        sys.exit(f"inference: bad configuration\n{error}")
    logs.configure(config.log_level)
    try:
        uvloop.run(serve(config))
    except (listen.CannotListenError, tls.TlsError) as error:
        sys.exit(f"inference: {error}")
    # Everything is drained and closed. Tearing down torch's libraries would take seconds and serve nobody.
    logging.shutdown()
    os._exit(0)
