"""A CPU replica without torch: same forecasts and indicators, sentiment as in torch, missing models named."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

import market_inference
from benchmarks.services import Services
from market_inference.errors import UnavailableError
from models import forecast, indicators, sentiment
from models.forecast import Series
from models.forecast.embedded import Embedded
from models.indicators import Panel, Spec, Task

LEVELS = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))
TEXTS = (
    "Operating profit rose to EUR 21.4 mn from EUR 15.9 mn a year earlier.",
    "Shares plunge after the profit warning",
    "The annual general meeting is on Monday. " * 30,
)
INDICATORS = ("RSI", "MACD", "BBANDS", "ATR", "HT_TRENDLINE")


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """A gateway before a replica that has no torch."""
    with Services(tmp_path_factory.mktemp("without")) as services:
        services.start_gateway([services._replica("tests.pair.no_torch", "127.0.0.1:0", {"device": "auto"})])
        services.wait_loaded()
        yield services


@pytest.fixture(scope="module")
def client(without: Services) -> Iterator[market_inference.Client]:
    with market_inference.Client(without.gateway.target, api_key=without.gateway.key) as client:
        yield client


def series() -> dict[str, np.ndarray]:
    """A random walk (the gate stays shut) and a noisy wave (the gate opens)."""
    dice = np.random.default_rng(3)
    wave = 50 + 10 * np.sin(np.arange(300) / 3) + dice.normal(size=300)
    return {"walk": 100 * np.exp(0.01 * dice.normal(size=500).cumsum()), "wave": wave}


def test_the_replica_is_healthy_on_the_cpu(without: Services, client: market_inference.Client) -> None:
    (replica,) = client.status().replicas
    assert replica.health == "healthy", replica
    maps = Path(f"/proc/{without._running[0].pid}/maps").read_text(encoding="utf-8")
    assert "torch" not in maps


@pytest.mark.parametrize("model", ["auto", "vol_rw", "ridge_ar"])
@pytest.mark.parametrize("symbol", list(series()))
def test_forecasts_are_bit_by_bit_those_beside_torch(client: market_inference.Client, model: str, symbol: str) -> None:
    values = series()[symbol]
    answer = client.predict(values, horizon=12, quantiles=LEVELS, model=model)
    item = Series(values, 12, LEVELS)
    with threadpool_limits(1, user_api="blas"):
        (here,) = forecast.load(model).run([item])
        (in_torch,) = Embedded(model, tensors=True).run([item])
    np.testing.assert_array_equal(answer.point, here.point)
    np.testing.assert_array_equal(answer.quantiles, here.quantiles)
    np.testing.assert_allclose(answer.quantiles, in_torch.quantiles, rtol=1e-9)


def test_indicators_are_bit_by_bit_those_beside_torch(
    client: market_inference.Client, market: dict[str, np.ndarray]
) -> None:
    answer = client.indicators(market, INDICATORS)
    program = indicators.compile([Spec(name) for name in INDICATORS])
    task = Task(Panel(**market), program)
    (here,), (in_torch,) = indicators.load().run([task]), indicators.load(backend="torch").run([task])
    columns = list(answer.columns().values())
    assert len(columns) == len(program.outputs)
    for column, row, kernel in zip(columns, here, in_torch, strict=True):
        np.testing.assert_array_equal(column, row)
        np.testing.assert_allclose(column, kernel, rtol=1e-6, atol=1e-9)


def test_sentiment_is_that_of_torch(client: market_inference.Client) -> None:
    from models.manifest import Manifest
    from models.sentiment import minilm
    from models.sentiment.encoder import Classifier
    from models.sentiment.source import SHIPPED
    from models.sentiment.torch_network import PackedNetwork

    weights = minilm.embedded(SHIPPED, Manifest.of(SHIPPED))
    network = PackedNetwork(Classifier.of(weights).eval(), torch.device("cpu"), torch.float32)
    model = sentiment.load(dtype="float32")
    for text in TEXTS:
        answer = client.sentiment(text)
        (chunks,) = model.prepare([text])
        rows = np.concatenate([network.probabilities([chunk.ids]) for chunk in chunks])
        expected = model.pool(chunks, rows)
        found = [answer.negative, answer.neutral, answer.positive]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_model_that_needs_an_extra_is_listed_with_the_command(client: market_inference.Client) -> None:
    found = {model.name: model for model in client.models()}
    command = "pip install -c constraints/runtime.txt -e '.[pretrained]' in the checkout"
    assert found["fracast"].state == "failed" and command in found["fracast"].message
    assert found["auto_fracast"].state == "failed" and command in found["auto_fracast"].message
    assert {found[name].state for name in ("auto", "minilm", "ta-lib")} == {"ready"}


def test_a_call_of_such_a_model_fails_alone(without: Services, client: market_inference.Client) -> None:
    never, gateway = market_inference.Retries(attempts=0), without.gateway
    with (
        market_inference.Client(gateway.target, api_key=gateway.key, retries=never) as once,
        pytest.raises(UnavailableError, match="pretrained"),
    ):
        once.predict(series()["walk"], horizon=2, model="fracast")
    assert client.predict(series()["walk"], horizon=2).point.shape == (2,)
