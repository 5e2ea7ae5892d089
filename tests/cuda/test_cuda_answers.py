"""Answers on CUDA equal answers on the CPU within the tolerance of the number format, alone and in a batch."""

from collections.abc import Sequence

import numpy as np
import pytest

from models import forecast, indicators, sentiment
from models.forecast import Forecast, Series
from models.sentiment.model import CHECK_TOLERANCE, SentimentModel
from training.sentiment.phrases import phrases

LEVELS = (0.05, 0.1, 0.5, 0.9, 0.95)
# Tolerances of the embedded forecasters (float64) and of Fracast (float32), relative to the range of a series.
TOLERANCES = {"auto": 1e-6, "vol_rw": 1e-9, "ridge_ar": 1e-6, "fracast": 1e-3, "auto_fracast": 1e-3}
PROGRAM = indicators.compile(
    [indicators.Spec("RSI"), indicators.Spec("MACD", last=5), indicators.Spec("HT_TRENDLINE"), indicators.Spec("SAR")]
)


def series() -> list[Series]:
    """Random walks and seasonal series of different contexts and horizons."""
    rng = np.random.default_rng(3)
    found = []
    for points, horizon in ((40, 5), (100, 24), (256, 60), (900, 3)):
        found.append(Series(np.exp(0.02 * rng.normal(size=points).cumsum()), horizon, LEVELS))
        wave = 50 + 10 * np.sin(np.arange(points) / 3) + rng.normal(size=points)
        found.append(Series(wave, horizon, LEVELS[1:4]))
    return found


def assert_alike(found: Sequence[Forecast], expected: Sequence[Forecast], items: Sequence[Series], near: float) -> None:
    for one, other, item in zip(found, expected, items, strict=True):
        reach = near * float(np.ptp(item.values))
        np.testing.assert_allclose(one.quantiles, other.quantiles, rtol=near, atol=reach)
        np.testing.assert_allclose(one.point, other.point, rtol=near, atol=reach)
        assert one.gate == pytest.approx(other.gate, abs=near)
        assert (one.logs, one.context, one.coverage_count) == (other.logs, other.context, other.coverage_count)


@pytest.mark.parametrize("name", TOLERANCES)
def test_a_forecast_equals_the_cpu_and_does_not_depend_on_the_batch(name: str, device: str) -> None:
    items, there = series(), forecast.load(name, device=device)
    together = there.run(items)
    assert_alike(together, forecast.load(name).run(items), items, TOLERANCES[name])
    assert_alike(together, [there.run([item])[0] for item in items], items, TOLERANCES[name])
    there.check()


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Phrases of different lengths, and one text of several chunks."""
    return [row.text for row in phrases(400, seed=5)] + ["Profit rose and debt fell. " * 60]


def probabilities(model: SentimentModel, texts: Sequence[str]) -> np.ndarray:
    chunked = model.prepare(texts)
    found = iter(model.run([chunk for chunks in chunked for chunk in chunks]))
    return np.stack([model.pool(chunks, [next(found) for _ in chunks]) for chunks in chunked])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_sentiment_equals_the_cpu_in_float32(dtype: str, device: str, texts: list[str]) -> None:
    there = sentiment.load(device=device, dtype=dtype)
    found, expected = probabilities(there, texts), probabilities(sentiment.load(dtype="float32"), texts)
    assert np.abs(found - expected).max() <= CHECK_TOLERANCE[there._network.dtype]
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.995
    there.check()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_sentiment_does_not_depend_on_the_batch(dtype: str, device: str, texts: list[str]) -> None:
    there = sentiment.load(device=device, dtype=dtype)
    few = texts[::25]
    alone = np.concatenate([probabilities(there, [text]) for text in few])
    assert np.abs(probabilities(there, few) - alone).max() <= {"float32": 1e-5, "bfloat16": 0.02}[there._network.dtype]


def test_indicators_of_panels_of_any_length_equal_ta_lib(device: str) -> None:
    rng = np.random.default_rng(4)
    tasks = []
    for bars in (30, 64, 200, 199, 1500):
        close = 100 * np.exp(0.01 * rng.normal(size=bars).cumsum())
        panel = indicators.Panel(close.copy(), close * 1.01, close * 0.99, close, rng.uniform(1e3, 1e6, bars))
        tasks.append(indicators.Task(panel, PROGRAM))
    there = indicators.load(device, backend="torch")
    for found, expected in zip(there.run(tasks), indicators.load(backend="talib").run(tasks), strict=True):
        for row, reference in zip(found, expected, strict=True):
            np.testing.assert_allclose(row, reference, rtol=1e-9, atol=1e-9)
    there.check()
