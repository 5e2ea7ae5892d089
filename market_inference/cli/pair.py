"""An inference service, a gateway and, if asked for, an HTTP edge on this machine, as child processes of this one.

Owns the wiring of the processes and their common end.

    with market_inference.Pair() as pair, pair.client() as client:
        pair.wait_loaded()
        client.predict(closes, horizon=10)
"""

import queue
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from market_inference.cli import checkout
from market_inference.cli.process import Ready, ServiceProcess
from market_inference.client.aio import AsyncClient
from market_inference.client.client import Client
from market_inference.client.status import ModelInfo
from market_inference.contract.state import development_key_file, state_dir
from market_inference.errors import UnavailableError

# The modules of the two services, started by name: this package imports neither.
INFERENCE = "inference"
GATEWAY = "gateway"
EDGE = "edge"
ANY_PORT = "127.0.0.1:0"
# The kernel takes paths of up to 107 bytes, with the ending that the inference service adds.
MOST_SOCKET_PATH = 90
POLL_SECONDS = 0.2
SETTLED = {"ready", "failed"}


class Pair:
    """Started by `with` or `start()`, ended by the end of `with` or `close()`.

    `state`: the folder for the development key and the logs, by default the user's own. `listen`, `metrics_listen`:
    "host:port" of the gateway, `inference_metrics_listen` of the inference service's /metrics; port 0 for any that is
    free. `http_listen`, `http_metrics_listen`: the same for an HTTP edge, started when `http_listen` is not empty.
    `device`: "cpu" or "cuda", empty for the service's choice. `start_timeout`: seconds until each process must listen.
    `grace`: seconds for each process to drain.
    """

    def __init__(
        self,
        *,
        state: Path | None = None,
        listen: str = ANY_PORT,
        metrics_listen: str = ANY_PORT,
        inference_metrics_listen: str = ANY_PORT,
        http_listen: str = "",
        http_metrics_listen: str = ANY_PORT,
        device: str = "",
        start_timeout: float = 180.0,
        grace: float = 25.0,
    ) -> None:
        self.state = state_dir() if state is None else state
        self._listen = listen
        self._metrics_listen = metrics_listen
        self._inference_metrics_listen = inference_metrics_listen
        self._http_listen = http_listen
        self._http_metrics_listen = http_metrics_listen
        self._device = device
        self._start_timeout = start_timeout
        self._grace = grace
        # The folder of the Unix socket between the two processes, for this user only.
        self._sockets = ""
        self._ended: queue.SimpleQueue[ServiceProcess] = queue.SimpleQueue()
        self._processes: list[ServiceProcess] = []
        self._gateway = Ready("", "")
        self._inference = Ready("", "")
        self._edge = Ready("", "")

    @property
    def target(self) -> str:
        """The gateway's "host:port"."""
        return self._gateway.listen

    @property
    def metrics(self) -> dict[str, str]:
        """The address of each process's /metrics, as "host:port"."""
        found = {"gateway": self._gateway.metrics, "inference": self._inference.metrics}
        return found | ({"edge": self._edge.metrics} if self._http_listen else {})

    @property
    def http(self) -> str:
        """The URL of the HTTP edge, "" without one."""
        return f"http://{self._edge.listen}" if self._http_listen else ""

    @property
    def processes(self) -> tuple[ServiceProcess, ...]:
        return tuple(self._processes)

    @property
    def key_file(self) -> Path:
        """The development key that the gateway made."""
        return self.state / development_key_file().name

    def start(self) -> None:
        """Start all and return when all listen; the models go on loading. Raises ServiceProcessError when one of them
        ends or does not listen in time, NoCheckoutError where the services are not installed.
        """
        for module in (INFERENCE, GATEWAY, *((EDGE,) if self._http_listen else ())):
            checkout.require(module)
        try:
            self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise OSError(f"the state folder {self.state} cannot be made: {error.strerror}") from None
        try:
            self._inference = self._spawn(
                INFERENCE,
                {
                    "MARKET_INFERENCE_LISTEN": self._between(),
                    "MARKET_INFERENCE_METRICS_LISTEN": self._inference_metrics_listen,
                    **({"MARKET_INFERENCE_DEVICE": self._device} if self._device else {}),
                },
            )
            self._gateway = self._spawn(
                GATEWAY,
                {
                    "MARKET_GATEWAY_LISTEN": self._listen,
                    "MARKET_GATEWAY_METRICS_LISTEN": self._metrics_listen,
                    "MARKET_GATEWAY_REPLICAS": self._inference.listen,
                },
            )
            if self._http_listen:
                self._edge = self._spawn(
                    EDGE,
                    {
                        "MARKET_EDGE_LISTEN": self._http_listen,
                        "MARKET_EDGE_METRICS_LISTEN": self._http_metrics_listen,
                        "MARKET_EDGE_GATEWAY": self._gateway.listen,
                        "MARKET_EDGE_KEY_FILE": str(self.key_file),
                    },
                )
        except BaseException:
            self.close()
            raise

    @property
    def key(self) -> str:
        """The development key itself: a secret."""
        return self.key_file.read_text(encoding="utf-8").strip()

    def client(self, *, timeout: float = 30.0) -> Client:
        """A new client of the gateway, with its key; the caller closes it."""
        return Client(self.target, api_key=self.key, timeout=timeout)

    def async_client(self, *, timeout: float = 30.0) -> AsyncClient:
        """A new asynchronous client of the gateway, with its key."""
        return AsyncClient(self.target, api_key=self.key, timeout=timeout)

    def wait_loaded(
        self, on_progress: Callable[[list[ModelInfo]], None] = lambda models: None, timeout: float = 300.0
    ) -> list[ModelInfo]:
        """The default models, once each is ready or has failed; `on_progress` gets the models at every poll.

        Raises ServiceProcessError when a process ends meanwhile, TimeoutError after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        with self.client() as client:
            while time.monotonic() < deadline:
                models = _defaults(client)
                on_progress(models)
                if models and all(model.state in SETTLED for model in models):
                    return models
                self._raise_if_ended(POLL_SECONDS)
        raise TimeoutError(f"the models did not load within {timeout:g} s")

    def wait(self) -> None:
        """Block until one of the processes ends by itself; raises the ServiceProcessError with the cause."""
        while True:  # the handler of a signal that comes just before an endless wait would run after the wait
            self._raise_if_ended(POLL_SECONDS)

    def close(self) -> None:
        """End the processes, callers before the called so that calls drain; returns when all are gone. Idempotent."""
        try:
            for process in reversed(self._processes):
                process.stop(self._grace)
        finally:
            # A second Ctrl-C shortens the drain; all processes still end.
            for process in self._processes:
                process.kill()
            self._processes.clear()
            if self._sockets:
                shutil.rmtree(self._sockets, ignore_errors=True)

    def _between(self) -> str:
        """The address for the inference service: a Unix socket, or a port where the temporary folder's path is long."""
        self._sockets = tempfile.mkdtemp(prefix="market-inference-")
        path = f"{self._sockets}/inference"
        return f"unix:{path}" if len(path.encode()) <= MOST_SOCKET_PATH else ANY_PORT

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _spawn(self, module: str, environment: dict[str, str]) -> Ready:
        process = ServiceProcess(
            module,
            {**environment, "MARKET_INFERENCE_STATE_DIR": str(self.state)},
            self.state / f"{module}.log",
            self._ended.put,
        )
        self._processes.append(process)
        return process.wait_ready(self._start_timeout)

    def _raise_if_ended(self, within: float) -> None:
        try:
            ended = self._ended.get(timeout=within)
        except queue.Empty:
            return
        raise ended.failure()


def _defaults(client: Client) -> list[ModelInfo]:
    """The default models; empty until the gateway has reached its replica."""
    try:
        return [model for model in client.models() if model.is_default]
    except UnavailableError:
        return []
