"""The serialised requests of the benchmarks.

Owns the requests of the workloads "predict", "sentiment" and "indicators" in all benchmarks: one item per request, as
from live users, and large requests. Inputs are drawn with a fixed seed.
"""

from dataclasses import dataclass

import numpy as np

from market_inference.contract import methods
from market_inference.contract.generated import inference_pb2 as pb

BARS = 256
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SIX = (("RSI", 14), ("MACD", None), ("BBANDS", 20), ("ATR", 14), ("SMA", 20), ("EMA", 20))
DISTINCT = 64

_SUBJECTS = ("Chipmaker", "The lender", "Carmaker", "The airline", "Drugmaker", "The retailer", "Miner", "The utility")
_VERBS = ("lifts", "cuts", "confirms", "misses", "beats", "delays", "withdraws", "reviews")
_OBJECTS = ("full-year guidance", "its dividend", "output forecasts", "a bond sale", "quarterly profit estimates")
_TAILS = ("as costs climb", "after a strong quarter", "on weak demand in Europe", "ahead of the rate decision")


@dataclass(frozen=True)
class Workload:
    """Pairs of method path and request. `items`: number of items per request."""

    name: str
    requests: tuple[tuple[str, bytes], ...]
    items: int = 1


def closes(seed: int, bars: int = BARS) -> np.ndarray:
    """A geometric random walk, float64 [bars]."""
    return 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.01, bars)))


def panel(seed: int, bars: int = BARS) -> pb.Panel:
    """Bars around a geometric random walk."""
    close = closes(seed, bars)
    opened = np.roll(close, 1)
    opened[0] = close[0]
    high, low = np.maximum(opened, close) * 1.004, np.minimum(opened, close) * 0.996
    volume = np.random.default_rng(seed).uniform(1e5, 1e6, bars)
    return pb.Panel(symbol="S", open=opened, high=high, low=low, close=close, volume=volume)


def headline(seed: int) -> str:
    dice = np.random.default_rng(seed)
    return " ".join(str(dice.choice(words)) for words in (_SUBJECTS, _VERBS, _OBJECTS, _TAILS))


def specs() -> list[pb.IndicatorSpec]:
    return [pb.IndicatorSpec(name=name, params={"timeperiod": period} if period else {}) for name, period in SIX]


def predict(series: int = 1, bars: int = BARS) -> Workload:
    requests = [
        pb.PredictRequest(
            series=[pb.Series(symbol="S", values=closes(seed * series + i, bars)) for i in range(series)],
            horizon=10,
            quantiles=LEVELS,
        )
        for seed in range(DISTINCT if series == 1 else 4)
    ]
    return _workload("predict", "Predict", requests, series)


def sentiment(texts: int = 1) -> Workload:
    requests = [
        pb.AnalyzeSentimentRequest(texts=[headline(seed * texts + i) for i in range(texts)])
        for seed in range(DISTINCT if texts == 1 else 8)
    ]
    return _workload("sentiment", "AnalyzeSentiment", requests, texts)


def indicators() -> Workload:
    requests = [pb.ComputeIndicatorsRequest(panels=[panel(seed)], indicators=specs()) for seed in range(DISTINCT)]
    return _workload("indicators", "ComputeIndicators", requests, 1)


def mix() -> Workload:
    """Forecasts, headlines and indicators in turn, like the requests of a trading strategy."""
    parts = [one.requests for one in (predict(), sentiment(), indicators())]
    return Workload("mix", tuple(request for turn in zip(*parts, strict=True) for request in turn))


def _workload(name: str, method: str, requests: list, items: int) -> Workload:
    path = methods.METHODS[method].path
    label = name if items == 1 else f"{name} x{items}"
    return Workload(label, tuple((path, request.SerializeToString()) for request in requests), items)


BY_NAME = {
    "predict": predict,
    "sentiment": sentiment,
    "indicators": indicators,
    "mix": mix,
    "predict-64x2000": lambda: predict(64, 2000),
    "sentiment-100": lambda: sentiment(100),
}
