"""The process: configuration, logs, signals. Everything else is server.py's."""

import asyncio
import logging
import signal
import sys

import uvloop
from pydantic import ValidationError

from gateway.config import Config
from gateway.security import ConfigurationError
from gateway.server import Server
from gateway.workers import WorkerFailedError, Workers
from wire import listen, logs

log = logging.getLogger("gateway")


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
        logs.configure(config.log_level)
        if config.workers > 1:
            Workers(config).run()
        else:
            uvloop.run(serve(config))
    except ValidationError as error:
        sys.exit(f"gateway: bad configuration\n{error}")
    except (ConfigurationError, WorkerFailedError, listen.CannotListenError) as error:
        sys.exit(f"gateway: {error}")
