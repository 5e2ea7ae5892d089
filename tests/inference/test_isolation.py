"""One client's costly work is not another client's problem: real models behind the service's own parts."""

import asyncio
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest

from inference.batching.batcher import Observer
from inference.build import Parts, build
from inference.calls.call import Call
from inference.config import Config
from market_inference.contract.generated import inference_pb2 as pb

pytestmark = pytest.mark.slow


@pytest.fixture
async def parts() -> AsyncIterator[Parts]:
    parts = build(Config(device="cpu", forecast_models="auto,vol_rw,ridge_ar,fracast", _env_file=None))
    await parts.catalog.load(parts.catalog.default("forecast"))
    yield parts
    parts.close()


@pytest.fixture
def batches(parts, monkeypatch) -> list[tuple[int, float]]:
    """(items, busy seconds) of each batch of the forecast engine."""
    found: list[tuple[int, float]] = []
    observer: Observer = parts.batchers["forecast"]._observer
    sound = observer.batch

    def batch(plan, result, units):
        found.append((len(plan.batch), result.busy))
        sound(plan, result, units)

    monkeypatch.setattr(observer, "batch", batch)
    return found


def walks(count: int, points: int, seed: int = 0) -> list[np.ndarray]:
    dice = np.random.default_rng(seed)
    return [100 * np.exp(0.01 * dice.standard_normal(points).cumsum()) for _ in range(count)]


def sines(count: int, points: int) -> list[np.ndarray]:
    dice = np.random.default_rng(1)
    return [100 + 10 * np.sin(np.arange(points) / 3) + dice.standard_normal(points) for _ in range(count)]


def request(series: list[np.ndarray], horizon: int, model: str = "") -> bytes:
    asked = pb.PredictRequest(horizon=horizon, model=model)
    for index, values in enumerate(series):
        asked.series.add(symbol=str(index), values=values.tolist())
    return asked.SerializeToString()


ATTACKS = {
    "ridge_ar, 64 x 10,000, horizon 365": lambda: request(walks(64, 10_000), 365, "ridge_ar"),
    "auto on noisy sines, 64 x 10,000": lambda: request(sines(64, 10_000), 24, "auto"),
    "auto on noisy sines, 256 x 256": lambda: request(sines(256, 256), 24, "auto"),
    "fracast, 256 x 2,048": lambda: request(walks(256, 2048), 24, "fracast"),
}


@pytest.mark.parametrize("name", list(ATTACKS))
@pytest.mark.timeout(240)
async def test_a_call_waits_for_few_batches_of_anothers_costly_request(parts, batches, name):
    victim = request(walks(1, 256, seed=9), 24)
    await parts.servicer.predict(victim, Call(client="victim"))
    if "fracast" in name:
        await parts.catalog.get("forecast", "fracast")
    batches.clear()
    attack = asyncio.create_task(parts.servicer.predict(ATTACKS[name](), Call(client="attacker")))
    await asyncio.sleep(0)
    waits: list[int] = []
    until = time.monotonic() + 5
    while len(waits) < 10 and not attack.done() and (time.monotonic() < until or len(waits) < 3):
        before = len(batches)
        await parts.servicer.predict(victim, Call(client="victim"))
        waits.append(len(batches) - before)
    attack.cancel()
    await asyncio.gather(attack, return_exceptions=True)
    # The batch that runs, the attacker's next one if its turn came first, and the victim's own.
    assert sorted(waits)[len(waits) // 2] <= 2
    assert max(waits) <= 5
    # An item that takes longer runs alone. The first slice of a kind that was not seen lately may take longer, too.
    alone = max((seconds for items, seconds in batches if items == 1), default=0.0)
    assert max(seconds for _, seconds in batches) < max(1.0, 2 * alone)
