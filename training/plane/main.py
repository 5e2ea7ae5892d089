"""The process: configuration and logs. Its life is runtime/process.py's, everything else server.py's."""

import logging
import sys

from runtime import listen, logs, loop, process, settings
from runtime.workers import WorkerFailedError, follow_parent
from training.plane import workers
from training.plane.config import Config
from training.plane.errors import ConfigurationError
from training.plane.server import Server

log = logging.getLogger("training.plane")


def main() -> None:
    """Serve until one of process.ending_signals()."""
    try:
        config = settings.read(Config)
        logs.configure(config.log_level)
        for noisy in ("alembic", "botocore", "boto3", "urllib3", "s3transfer"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        if config.workers > 1:
            workers.serve(config)
        else:
            if config.socket >= 0:
                follow_parent()
            loop.run(process.serve(lambda: Server(config), log))
    except settings.SettingsError as error:
        sys.exit(error.of("training.plane"))
    except (ConfigurationError, WorkerFailedError, listen.CannotListenError) as error:
        sys.exit(f"training.plane: {error}")
