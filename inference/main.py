"""The process: configuration and logs. Its life is runtime/process.py's, everything else server.py's."""

import logging
import os
import sys

import uvloop
from pydantic import ValidationError

from inference.config import Config
from inference.server import Server
from runtime import listen, logs, process, tls
from runtime.extra import ExtraMissingError

log = logging.getLogger("inference")


def main() -> None:
    try:
        config = Config()
    except ValidationError as error:
        sys.exit(f"inference: bad configuration\n{error}")
    logs.configure(config.log_level)
    try:
        uvloop.run(process.serve(lambda: Server(config), log))
    except (listen.CannotListenError, tls.TlsError, ExtraMissingError) as error:
        sys.exit(f"inference: {error}")
    # Everything is drained and closed. Tearing down torch's libraries would take seconds and serve nobody.
    logging.shutdown()
    os._exit(0)
