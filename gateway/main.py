"""The gateway's process: configuration, logs, and one process or several workers. The server is server.py's."""

import logging
import sys

from gateway import workers
from gateway.access.security import ConfigurationError
from gateway.config import Config
from gateway.server import Server
from runtime import listen, logs, loop, process, settings
from runtime.extra import ExtraMissingError
from runtime.workers import WorkerFailedError, follow_parent

log = logging.getLogger("gateway")


def main() -> None:
    try:
        config = settings.read(Config)
        logs.configure(config.log_level)
        if config.workers > 1:
            workers.serve(config)
        else:
            if config.share_port:
                follow_parent()
            loop.run(process.serve(lambda: Server(config), log))
    except settings.SettingsError as error:
        sys.exit(error.of("gateway"))
    except (ConfigurationError, WorkerFailedError, listen.CannotListenError, ExtraMissingError) as error:
        sys.exit(f"gateway: {error}")
