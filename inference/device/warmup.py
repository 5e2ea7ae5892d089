"""The batches of a model's warm-up, so that no request pays for caches, kernels and memory made on first use.

Owns the choice of batches. On CUDA, where the first use of a shape costs tens of milliseconds, every bucket gets a
batch. On the CPU a batch of the commonest shape fills the caches. A long series that opens the forecasters' gate shows
the scheduler the cost of the costliest kind of item.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from models import indicators
from models.forecast import Series

_DECILES = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))
_COMMON = ("SMA", "EMA", "RSI", "MACD", "BBANDS", "ATR")
_ROWS = 8
_LONG = 2048


def batches(engine: str, model: Any, device: str) -> Iterator[list[Any]]:
    """Batches of items for a model of the engine, on a device such as "cpu" or "cuda:0"."""
    yield from _BATCHES[engine](model, device.startswith("cuda"))


def _forecast(model: Any, thorough: bool) -> Iterator[list[Series]]:
    """Half of the rows are waves, to open the gate, and half are random walks, to keep the gate shut."""
    random = np.random.default_rng(0)
    for points in (64, 128, 256, 512, 1024, 2048, 4096) if thorough else (256,):
        wave = 50 + 10 * np.sin(np.arange(points) / 3)
        walk = np.exp(0.01 * random.standard_normal(points).cumsum())
        for values in (wave, walk):
            values.setflags(write=False)  # as those of a request
        for horizon in (8, 32, 128, 365) if thorough else (24,):
            yield [Series(values, horizon, _DECILES) for values in (wave, walk) for _ in range(_ROWS // 2)]
    if not thorough:
        yield [Series(50 + 10 * np.sin(np.arange(_LONG) / 3) + random.standard_normal(_LONG), 24, _DECILES)]


def _sentiment(model: Any, thorough: bool) -> Iterator[list[Any]]:
    for words in (8, 16, 32, 64, 128, 256) if thorough else (12,):
        # Different texts, because a model computes a repeated text once.
        texts = [f"{number} {'profit ' * words}" for number in range(_ROWS)]
        yield [chunk for chunks in model.prepare(texts) for chunk in chunks]


def _indicators(model: Any, thorough: bool) -> Iterator[list[indicators.Task]]:
    program = indicators.compile([indicators.Spec(name) for name in _COMMON])
    for bars in (128, 256, 512, 1024, 2048, 4096) if thorough else (256,):
        close = 100 + np.sin(np.arange(float(bars)))
        panel = indicators.Panel(close, close + 1, close - 1, close, np.ones(bars))
        yield [indicators.Task(panel, program)] * _ROWS


_BATCHES: dict[str, Callable[[Any, bool], Iterator[list[Any]]]] = {
    "forecast": _forecast,
    "sentiment": _sentiment,
    "indicators": _indicators,
}
