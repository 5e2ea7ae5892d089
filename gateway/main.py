"""The gateway's process: configuration, logs, and one process or several workers. The server is server.py's."""

import logging
import sys

from gateway.access.security import ConfigurationError
from gateway.config import Config
from gateway.server import Server
from gateway.workers import WorkerFailedError, Workers, follow_parent
from runtime import listen, logs, loop, process, settings
from runtime.extra import ExtraMissingError

log = logging.getLogger("gateway")


def main() -> None:
    try:
        config = settings.read(Config)
        logs.configure(config.log_level)
        if config.workers > 1:
            Workers(config).run()
        else:
            if config.share_port:
                follow_parent()
            loop.run(process.serve(lambda: Server(config), log))
    except settings.SettingsError as error:
        sys.exit(error.of("gateway"))
    except (ConfigurationError, WorkerFailedError, listen.CannotListenError, ExtraMissingError) as error:
        sys.exit(f"gateway: {error}")
