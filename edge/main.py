"""The edge's process: configuration, logs, and the server of server.py."""

import logging
import sys

from edge.config import Config
from edge.server import ConfigurationError, Server
from market_inference.errors import ArgumentError
from runtime import listen, logs, loop, process, settings
from runtime.extra import ExtraMissingError

log = logging.getLogger("edge")


def main() -> None:
    try:
        config = settings.read(Config)
        logs.configure(config.log_level)
        loop.run(process.serve(lambda: Server(config), log))
    except settings.SettingsError as error:
        sys.exit(error.of("edge"))
    except (ArgumentError, ConfigurationError, listen.CannotListenError, ExtraMissingError) as error:
        sys.exit(f"edge: {error}")
