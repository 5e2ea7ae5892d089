"""The process's entry point: configuration and logs. runtime/process.py owns the signals, server.py the service."""

import logging
import os
import sys

from pydantic import ValidationError

from inference.config import Config
from inference.server import Server
from runtime import listen, logs, loop, process, tls
from runtime.extra import ExtraMissingError

log = logging.getLogger("inference")


def main() -> None:
    try:
        config = Config()
    except ValidationError as error:
        sys.exit(f"inference: bad configuration\n{error}")
    logs.configure(config.log_level)
    try:
        loop.run(process.serve(lambda: Server(config), log))
    except (listen.CannotListenError, tls.TlsError, ExtraMissingError) as error:
        sys.exit(f"inference: {error}")
    # Every request is drained. Unloading torch's libraries would take seconds, so the process exits without it.
    logging.shutdown()
    os._exit(0)
