"""The process's entry point: configuration and logs. runtime/process.py owns the signals, server.py the service."""

import logging
import os
import sys

from inference.config import Config
from inference.device.cuda import pick_device
from inference.loading.sentiment import SentimentLoader
from runtime import logs, settings
from runtime.extra import ExtraMissingError

log = logging.getLogger("inference")


def main() -> None:
    try:
        config = settings.read(Config)
        logs.configure(config.log_level)
        load_sentiment = SentimentLoader(config, pick_device(config.device))
    except settings.SettingsError as error:
        sys.exit(error.of("inference"))
    except ExtraMissingError as error:
        sys.exit(f"inference: {error}")
    load_sentiment.begin()
    # These imports take as long as the model.
    from inference.server import Server
    from runtime import listen, loop, process, tls

    code = 0
    try:
        loop.run(process.serve(lambda: Server(config, load_sentiment), log))
    except tls.TlsError as error:
        sys.stderr.write(f"inference: MARKET_INFERENCE_TLS_CERTIFICATE, _KEY and _CLIENT_CA: {error}\n")
        code = 1
    except (settings.SettingsError, listen.CannotListenError, ExtraMissingError) as error:
        sys.stderr.write(f"inference: {error}\n")
        code = 1
    # Every request is drained. Unloading torch's libraries would take seconds, and fails while they are being loaded.
    logging.shutdown()
    os._exit(code)
