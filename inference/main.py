"""The process's entry point: configuration and logs. runtime/process.py owns the signals, server.py the service."""

import logging
import os
import sys

from pydantic import ValidationError

from inference.config import Config
from inference.device.cuda import pick_device
from inference.loading.sentiment import SentimentLoader
from runtime import logs

log = logging.getLogger("inference")


def main() -> None:
    try:
        config = Config()
    except ValidationError as error:
        sys.exit(f"inference: bad configuration\n{error}")
    logs.configure(config.log_level)
    load_sentiment = SentimentLoader(config, pick_device(config.device))
    load_sentiment.begin()
    # These imports take as long as the model.
    from inference.server import Server
    from runtime import listen, loop, process, tls
    from runtime.extra import ExtraMissingError

    code = 0
    try:
        loop.run(process.serve(lambda: Server(config, load_sentiment), log))
    except (listen.CannotListenError, tls.TlsError, ExtraMissingError) as error:
        sys.stderr.write(f"inference: {error}\n")
        code = 1
    # Every request is drained. Unloading torch's libraries would take seconds, and fails while they are being loaded.
    logging.shutdown()
    os._exit(code)
