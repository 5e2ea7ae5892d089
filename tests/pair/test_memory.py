"""The inference service stays below the shipped memory limit under requests with answers of the largest size."""

import asyncio
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml

import market_inference
from market_inference.errors import MarketInferenceError

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def shipped_limit() -> int:
    """Bytes of the inference container's memory limit in k8s/base."""
    for document in yaml.safe_load_all((ROOT / "k8s/base/inference.yaml").read_text()):
        if document["kind"] == "Deployment":
            (container,) = document["spec"]["template"]["spec"]["containers"]
            limit = container["resources"]["limits"]["memory"]
            assert limit.endswith("Gi")
            return int(limit[:-2]) << 30
    raise AssertionError("no Deployment")


def peak_bytes(process: psutil.Process) -> int:
    """The highest resident memory of the process so far."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) << 10


async def test_the_largest_answers_leave_a_replica_below_its_shipped_limit(services):
    replica = services.start_replica()
    gateway = services.start_gateway([replica])
    services.wait_loaded("forecast", "sentiment", "indicators")
    close = 100 + np.random.default_rng(1).normal(0, 1, 10_000).cumsum()
    # 25 MB each, just below the contract's limit for an answer.
    many = [("BBANDS", {"timeperiod": 5 + number}) for number in range(100)]
    async with market_inference.AsyncClient(gateway.target, api_key=gateway.key) as client:

        async def attack(number: int) -> str:
            try:
                await client.indicators(close, many, timeout=60)
            except MarketInferenceError as error:
                return type(error).__name__
            return "answered"

        outcomes = await asyncio.gather(*(attack(number) for number in range(40)))
        alone = await client.predict(close[:100], 5)
    assert len(alone.point) == 5
    assert "answered" in outcomes
    peak = peak_bytes(psutil.Process(replica.service.pid))
    assert peak < shipped_limit(), f"{peak >> 20} MiB; {outcomes}"
