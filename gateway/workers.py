"""Several gateway processes on one port (SO_REUSEPORT), with an event loop and a core per process.

Owns the port, the end of workers that hang, and the /metrics of all workers together. runtime/workers.py owns the
processes.
"""

import asyncio
import logging
import os
import socket
import threading
import time
from contextlib import closing, suppress

from gateway.access.tokens import copy_for_workers
from gateway.config import Config
from gateway.totals import Totals
from runtime import listen
from runtime.listen import bind, split
from runtime.logs import fields
from runtime.metrics.scrape import MetricsServer
from runtime.workers import Workers

log = logging.getLogger(__name__)

# Signs of life in the time after which a worker is replaced.
BEATS = 4


async def beat(seconds: float) -> None:
    """In a worker: show the parent at intervals that the event loop runs."""
    with suppress(OSError):  # without a parent the worker ends, see follow_parent()
        while True:
            os.write(1, b"\n")
            await asyncio.sleep(seconds)


def serve(config: Config) -> None:
    """Serve until one of process.ending_signals(), and until all workers have drained. Raises WorkerFailedError."""
    family = socket.AF_INET6 if "[" in config.listen else socket.AF_INET
    with socket.socket(family) as holder, copy_for_workers(config.jwt_key_set) as key_set:
        address = bind(lambda address: _hold(holder, address), config.listen)
        settings = {
            "MARKET_GATEWAY_WORKERS": "1",
            "MARKET_GATEWAY_SHARE_PORT": "true",
            "MARKET_GATEWAY_LISTEN": address,
            "MARKET_GATEWAY_METRICS_LISTEN": "127.0.0.1:0",
            **({"MARKET_GATEWAY_JWT_COPY": key_set} if key_set else {}),
        }
        workers = Workers("gateway", config.workers, settings)
        totals = Totals(lambda: [worker.addresses["metrics"] for worker in workers.all if worker.addresses])
        metrics = MetricsServer(config.metrics_listen, totals).address
        # The socket is closed first: the next gateway may have the port once the workers, which drain, have left it.
        with workers.running(), closing(holder):
            listen.announce(listen=address, metrics=metrics)
            log.info("listening", extra=fields(listen=address, metrics=metrics, workers=config.workers))
            hung = (workers, config.worker_seconds)
            threading.Thread(target=_end_hung_workers, args=hung, name="hung", daemon=True).start()
            workers.serve(lambda dead: totals.keep_counters(dead.addresses.get("metrics", "")))


def _end_hung_workers(workers: Workers, seconds: float) -> None:
    """Kill workers that show no life: the kernel goes on to give them their share of new connections."""
    while True:
        time.sleep(seconds / BEATS)
        for worker in tuple(workers.all):
            if worker.started.is_set() and time.monotonic() - worker.heard > seconds:
                log.error("worker does not answer", extra=fields(pid=worker.process.pid, seconds=seconds))
                worker.process.kill()


def _hold(holder: socket.socket, address: str) -> int:
    """Reserve the port for the workers. The socket is bound and never listens, so it gets no connections.

    Raises OSError where another process has the port.
    """
    listen.refuse_taken(address)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    holder.bind(split(address))
    return int(holder.getsockname()[1])
