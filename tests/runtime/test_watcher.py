"""A watcher outlives every failure of a look, and shows the failure in the log and the metrics."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from runtime.watcher import LookError, Watcher, WatcherCollector


class Panic(BaseException):
    """As pyo3 raises for a panic of a library in Rust."""


FAILURES = [
    Panic("unwrap on None"),
    LookError("no keys"),
    OSError("no file"),
    ValueError("no JSON"),
    TypeError("unhashable type: 'list'"),
    RecursionError(),
    KeyError("kid"),
    MemoryError(),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_every_failure_is_counted_and_the_next_look_follows(failure):
    looks = []

    async def look():
        looks.append(1)
        if len(looks) < 3:
            raise failure

    watcher = Watcher("keys", look, interval=0.0)
    registry = CollectorRegistry()
    registry.register(WatcherCollector("gateway", [watcher]))
    await watcher.look()
    await watcher.look()
    assert registry.get_sample_value("market_gateway_watcher_failing", {"watcher": "keys"}) == 1
    assert registry.get_sample_value("market_gateway_watcher_failures_total", {"watcher": "keys"}) == 2
    await watcher.look()
    assert registry.get_sample_value("market_gateway_watcher_failing", {"watcher": "keys"}) == 0
    assert registry.get_sample_value("market_gateway_watcher_failures_total", {"watcher": "keys"}) == 2


async def test_a_look_that_hangs_has_failed():
    hangs = True

    async def look():
        if hangs:
            await asyncio.Event().wait()

    watcher = Watcher("keys", look, interval=0.0, timeout=0.01)
    await watcher.look()
    assert watcher.failure == "TimeoutError"
    hangs = False
    await watcher.look()
    assert watcher.failure == ""


async def test_the_same_failure_is_logged_once_and_the_recovery_too(caplog):
    reason = "no keys"

    async def look():
        if reason:
            raise LookError(reason)

    caplog.set_level("INFO")
    watcher = Watcher("keys", look, interval=0.0)
    for _ in range(5):
        await watcher.look()
    assert caplog.messages == ["watcher failed"]
    reason = ""
    await watcher.look()
    await watcher.look()
    assert caplog.messages == ["watcher failed", "watcher works again"]


async def test_run_looks_again_and_again_until_it_is_cancelled():
    looks = asyncio.Semaphore(0)

    async def look():
        looks.release()
        raise TypeError("a bug")

    task = asyncio.create_task(Watcher("keys", look, interval=0.0).run())
    async with asyncio.timeout(60):
        for _ in range(5):
            await looks.acquire()
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
