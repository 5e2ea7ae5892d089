"""Several processes of the plane on one listening socket. Only the store is shared.

Owns the socket and the settings of a worker. runtime/workers.py owns the processes.
"""

import logging

from gateway.access.tokens import copy_for_workers
from runtime import listen
from runtime.http_server import listening
from runtime.logs import fields
from runtime.workers import Workers
from training.plane.config import Config
from training.plane.server import BACKLOG

log = logging.getLogger(__name__)


def serve(config: Config) -> None:
    """Serve until one of process.ending_signals(). Raises WorkerFailedError, CannotListenError."""
    with listening(config.listen, backlog=BACKLOG) as held, copy_for_workers(config.jwt_key_set) as key_set:
        host, _ = listen.split(config.listen)
        address = f"{host}:{held.getsockname()[1]}"
        settings = {
            "MARKET_TRAINING_WORKERS": "1",
            "MARKET_TRAINING_SOCKET": str(held.fileno()),
            "MARKET_TRAINING_LISTEN": address,
            **({"MARKET_TRAINING_JWT_COPY": key_set} if key_set else {}),
        }
        workers = Workers("training.plane", config.workers, settings, (held.fileno(),))
        with workers.running():
            listen.announce(listen=address, metrics=address)
            log.info("listening", extra=fields(listen=address, workers=config.workers))
            workers.serve()
