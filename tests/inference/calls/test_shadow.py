"""A model in the shadow runs on a share of the requests, is compared, and is never returned."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import generate_latest

from inference.build import build
from inference.calls.call import ReplicaCall
from inference.config import Config
from market_inference.contract.encoding import twins
from market_inference.contract.generated import inference_pb2
from models.manifest import Manifest

WALK = 100 * np.exp(np.cumsum(np.random.default_rng(3).standard_normal(120) / 100))


def put(folder: Path, name: str, share: float, of: str = "auto") -> None:
    folder.mkdir(parents=True)
    Manifest(
        "forecast", "vol_rw", name, "2-beef", "Apache-2.0", "float64", {}, extra={"shadow": {"of": of, "share": share}}
    ).write(folder)


async def answered(parts, count: int, values=WALK) -> set[str]:
    request = inference_pb2.PredictRequest(horizon=3)
    request.series.add(symbol="A", values=values)
    versions = set()
    for _ in range(count):
        raw = await parts.servicer.predict(twins.rewrite(request), ReplicaCall(client="c"))
        response = inference_pb2.PredictResponse.FromString(raw)
        assert (response.model, len(response.forecasts)) == ("auto", 1)
        versions.add(response.model_version)
        while parts.servicer.shadows._running:
            await asyncio.wait(set(parts.servicer.shadows._running))
    return versions


def counted(parts) -> dict[str, float]:
    lines = generate_latest(parts.metrics.registry).decode().splitlines()
    found = [line for line in lines if line.startswith("market_inference_shadow_items_total{")]
    return {line.split('outcome="')[1].split('"')[0]: float(line.split()[-1]) for line in found}


@pytest.mark.parametrize(("share", "least", "most"), [(1.0, 20, 20), (0.3, 1, 15)])
async def test_a_share_of_the_requests_is_compared_and_callers_get_the_champion(
    tmp_path: Path, share: float, least: int, most: int
) -> None:
    put(tmp_path / "auto.shadow", "auto.shadow", share)
    parts = build(Config(device="cpu", registry=str(tmp_path)))
    try:
        await parts.registry.scan()
        assert await answered(parts, 20) == {parts.catalog.slot("forecast", "auto").model.version}
        found = counted(parts)
        assert least <= found["agree"] + found["differ"] <= most
        (tmp_path / "auto.shadow" / "manifest.json").unlink()
        for _ in range(2):
            await parts.registry.scan()
        await answered(parts, 5)
        assert counted(parts) == found
    finally:
        parts.close()


async def test_a_large_request_which_is_read_in_place_is_compared(tmp_path: Path) -> None:
    put(tmp_path / "auto.shadow", "auto.shadow", 1.0)
    parts = build(Config(device="cpu", registry=str(tmp_path)))
    try:
        await parts.registry.scan()
        await answered(parts, 1, np.tile(WALK, 200))
        assert sum(counted(parts).values()) == 1.0
    finally:
        parts.close()


async def test_a_shadow_that_fails_is_counted_and_harms_no_answer(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    Manifest(
        "forecast", "chronos_2", "broken", "1", "Apache-2.0", "float32", {"w": "0" * 64},
        extra={"shadow": {"of": "auto", "share": 1.0}},
    ).write(tmp_path / "broken")  # fmt: skip
    parts = build(Config(device="cpu", registry=str(tmp_path)))
    try:
        await parts.registry.scan()
        await answered(parts, 3)
        assert counted(parts) == {"failed": 3.0}
    finally:
        parts.close()
