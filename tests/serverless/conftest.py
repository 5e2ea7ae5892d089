"""One real worker for all tests of this folder: the models load once, and all parts live on one event loop."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from inference.config import Config as ServiceConfig
from serverless.config import Config
from serverless.handler import Handler


@pytest.fixture(scope="session")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="session")
def handler(runner: asyncio.Runner) -> Iterator[Handler]:
    handler = Handler(Config(), ServiceConfig(device="cpu", max_queued_seconds=60))
    worker = runner.run(handler.worker())
    runner.run(worker.parts.catalog.load_defaults())
    yield handler
    worker.close()


@pytest.fixture
def ask(runner: asyncio.Runner, handler: Handler) -> Callable[..., dict[str, Any]]:
    """`ask(action, **input)` returns the worker's result for a job."""

    def ask(action: str, job_id: str = "job-1", **given: Any) -> dict[str, Any]:
        return runner.run(handler({"id": job_id, "input": {"action": action, **given}}))

    return ask


@pytest.fixture(scope="session")
def closes() -> list[float]:
    return (100 + np.random.default_rng(6).normal(0, 1, 120).cumsum()).round(2).tolist()


@pytest.fixture(scope="session")
def ohlcv(closes: list[float]) -> dict[str, list[float]]:
    close = np.array(closes)
    return {
        "open": (close - 0.25).tolist(),
        "high": (close + 1).tolist(),
        "low": (close - 1).tolist(),
        "close": closes,
        "volume": [1000.0] * len(closes),
    }
