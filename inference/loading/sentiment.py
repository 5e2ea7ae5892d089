"""Loads sentiment models; the default model begins to load while the service's modules are imported.

Reading, checking and merging the weights leave the interpreter's lock free, so that a second core does this work beside
the imports. Imports no model: models.sentiment imports a model's code when the model is loaded.
"""

import atexit
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Any

from inference.config import Config, model_list
from inference.device import blas
from models import sentiment
from runtime import cores
from runtime.foreign import outcome_for

# More threads would have less than a hundred tokens each of a common batch.
MOST_THREADS = 4
# The longest wait for a hanging load at the end of the process.
_END_SECONDS = 10.0


class SentimentLoader:
    """Loads models for a device, such as "cpu" or "cuda:0". Safe from any thread."""

    def __init__(self, config: Config, device: str) -> None:
        self._default = next(iter(model_list(config.sentiment_models)), None)
        self._device = device
        # The matrix products of texts are large enough to share a batch.
        self._threads = config.text_threads or min(cores.available(), MOST_THREADS)
        self._blas_threads = config.engine_threads
        self._begun: list[Future[Any]] = []

    def begin(self) -> None:
        """Load the default model on a thread of its own, on a CPU; other devices have limits to set first."""
        blas.limit(self._blas_threads)
        if self._default is not None and self._device == "cpu":
            name, source = self._default
            self._begun.append(_outcome(lambda: self.fresh(name, source)))

    def __call__(self, name: str, source: str | None) -> Any:
        """The model of begin() for the first call with its name, else a model loaded now.

        Raises the errors of models.sentiment.load.
        """
        if (name, source) == self._default and self._begun:
            return self._begun.pop().result()
        return self.fresh(name, source)

    def fresh(self, name: str, source: str | None) -> Any:
        """A model loaded now. Raises the errors of models.sentiment.load."""
        return sentiment.load(source or name, device=self._device, threads=self._threads)


def _outcome(load: Callable[[], Any]) -> Future[Any]:
    """The outcome of `load` on a thread of its own."""
    found: Future[Any] = Future()
    thread = Thread(target=lambda: outcome_for(found, load)(), name="load-first", daemon=True)
    thread.start()
    # A process that cannot listen ends meanwhile. The interpreter must not end under a thread in a library's code.
    atexit.register(thread.join, _END_SECONDS)
    return found
