"""A job's life: bugs, cancels, missing packages, load and memory."""

import asyncio
import gc
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.config import Config as ServiceConfig
from market_inference.contract.errors import OverloadedError
from serverless.concurrency import Load, concurrency
from serverless.config import Config
from serverless.handler import Handler
from serverless.memory import Memory, process_share
from tests.eventually import eventually_async


@pytest.fixture
def servicer(runner, handler):
    return runner.run(handler.worker()).parts.servicer


def test_a_bug_reaches_the_log_and_not_the_caller(ask, servicer, monkeypatch, caplog):
    async def broken(request, call):
        raise ZeroDivisionError("/secret/path")

    monkeypatch.setattr(servicer, "models", broken)
    result = ask("models", request_id="r-9")
    assert result["error_type"] == "internal_error"
    assert "/secret/path" not in json.dumps(result)
    (bug,) = [record for record in caplog.records if record.exc_info]
    assert bug.fields["request_id"] == "r-9"
    assert "/secret/path" in caplog.text


def test_a_full_queue_is_service_unavailable_and_lowers_the_concurrency(runner, handler, ask, servicer, monkeypatch):
    async def full(request, call):
        raise OverloadedError("the queue is full", retry_after=1.0)

    async def level(current):
        return handler.concurrency(current)

    monkeypatch.setattr(servicer, "models", full)
    assert runner.run(level(256)) == 256
    assert ask("models")["error_type"] == "service_unavailable"
    assert runner.run(level(256)) == 128
    assert runner.run(level(128)) == 128, "refusals count once"


def test_a_cancelled_job_never_reaches_the_device_and_raises(runner, handler, closes, monkeypatch):
    async def cancel():
        batcher = (await handler.worker()).parts.tracks["forecast"]
        job = {"id": "j", "input": {"action": "predict", "time_series": closes, "horizon": 5}}
        submitted = asyncio.get_running_loop().create_future()
        monkeypatch.setattr(batcher, "submit", submitted.set_result)
        task = asyncio.create_task(handler(job))
        waiting = await submitted
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return waiting

    job = runner.run(cancel())
    assert job.reply.cancelled(), "the batcher sees that nobody waits"
    assert handler.in_flight == 0


def test_a_job_that_fills_the_queue_leaves_the_other_jobs_their_share(runner, handler, monkeypatch):
    async def beside():
        batcher = (await handler.worker()).parts.tracks["sentiment"].quick
        monkeypatch.setattr(batcher, "_max_queued", 0.05)
        words = "profit rose sharply as demand for chips grew " * 200
        large = asyncio.create_task(handler({"id": "large", "input": {"action": "sentiment", "texts": [words] * 100}}))
        await eventually_async(lambda: batcher.shares.total > 1.0)
        small = await handler({"id": "small", "input": {"action": "sentiment", "text": "Profit rose."}})
        large.cancel()
        await asyncio.gather(large, return_exceptions=True)
        return small

    result = runner.run(beside())
    assert "error" not in result, result
    assert result["output"]["sentiments"][0]["sentiment"]["label"] == "positive"


def test_cancelling_one_job_during_the_build_does_not_cancel_the_others(runner):
    async def scenario():
        handler = Handler(Config(), ServiceConfig(device="cpu"))
        first, second = (
            asyncio.create_task(handler({"id": name, "input": {"action": "models"}})) for name in ("a", "b")
        )
        await asyncio.sleep(0)
        first.cancel()
        result = await second
        (await handler.worker()).close()
        return first.cancelled(), result["status"]

    assert runner.run(scenario()) == (True, "success")


def test_a_missing_package_is_named_and_the_next_job_retries_the_build(runner, monkeypatch):
    handler = Handler(Config(), ServiceConfig())

    def missing(name):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    async def twice():
        return [await handler({"id": "j", "input": {"action": "health"}}) for _ in range(2)]

    monkeypatch.setattr("importlib.import_module", missing)
    for result in runner.run(twice()):
        assert result["error_type"] == "service_unavailable"
        assert "lacks the Python package 'torch': install the extra `serverless`" in result["error"]


def test_metrics_count_jobs_by_known_action_and_outcome_only(runner, handler, ask):
    registry = runner.run(handler.worker()).parts.metrics.registry

    def count(method, code):
        name = "market_inference_requests_total"
        return registry.get_sample_value(name, {"method": method, "code": code}) or 0

    before = count("models", "OK"), count("none", "INVALID_ACTION")
    ask("models")
    ask("my-own-action")
    assert (count("models", "OK"), count("none", "INVALID_ACTION")) == (before[0] + 1, before[1] + 1)
    assert count("my-own-action", "INVALID_ACTION") == 0


def test_the_worker_watches_the_model_registry(runner, tmp_path, monkeypatch):
    looks = asyncio.Semaphore(0)

    async def look(registry):
        looks.release()

    async def start():
        handler = Handler(Config(), ServiceConfig(device="cpu", registry=str(tmp_path), registry_interval=0.01))
        worker = await handler.worker()
        async with asyncio.timeout(60):
            for _ in range(3):
                await looks.acquire()
        worker.close()

    monkeypatch.setattr("inference.loading.registry.Registry.look", look)
    runner.run(start())


loads = st.builds(Load, st.integers(0, 2000), st.floats(0, 100), st.integers(0, 50))


@given(st.none() | st.integers(-5, 5000), loads, st.integers(1, 64), st.integers(0, 500))
def test_concurrency_stays_within_its_bounds(current, load, lowest, more):
    level = concurrency(current, load, lowest=lowest, highest=lowest + more)
    assert lowest <= level <= lowest + more


def test_concurrency_rises_when_slots_are_the_bottleneck_and_only_then():
    def after(load):
        return concurrency(64, load, lowest=64, highest=512)

    assert after(Load(in_flight=60, queued_seconds=0.01, refused=0)) == 128
    assert after(Load(in_flight=60, queued_seconds=5.0, refused=0)) == 64, "the engines are busy as it is"
    assert after(Load(in_flight=10, queued_seconds=0.0, refused=0)) == 64, "every change costs a drain"
    assert concurrency(None, Load(0, 0.0, 0), lowest=64, highest=512) == 64, "the SDK begins with none"


class Device:
    def __init__(self):
        self.share, self.now, self.releases = 0.0, 0.0, 0
        self.releasing = asyncio.Event()

    async def release(self):
        self.releasing.set()
        await asyncio.sleep(0)
        self.releases += 1

    def memory(self, policy):
        return Memory(policy, 0.8, lambda: self.share, self.release, lambda: self.now)


def test_memory_is_released_after_each_job_or_under_pressure_only():
    async def scenario():
        device = Device()
        each, pressed = device.memory("each_job"), device.memory("on_pressure")
        for _ in range(3):
            each.job_done()
            await each.idle()
        assert device.releases == 3
        for share, now, expected in ((0.79, 0, 3), (0.81, 1, 4), (0.9, 2, 4), (0.9, 12, 5)):
            device.share, device.now = share, now
            pressed.job_done()
            await pressed.idle()
            assert device.releases == expected
        for _ in range(5):
            each.job_done()
        await each.idle()
        assert device.releases == 6, "jobs that end together share a release"
        device.releasing.clear()
        each.job_done()
        await device.releasing.wait()
        each.job_done()
        await each.idle()
        assert device.releases == 8, "a job that ends during a release gets its own"

    asyncio.run(scenario())


def test_the_process_knows_its_share_of_memory():
    assert 0 < process_share() < 1


def resident_mb() -> float:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def test_memory_does_not_grow_from_job_to_job_also_after_errors(runner, closes):
    handler = Handler(Config(memory_policy="each_job"), ServiceConfig(device="cpu", max_queued_seconds=60))
    good = {"action": "indicators", "panels": [{"close": closes * 80}] * 15, "indicators": [{"name": "EMA", "last": 5}]}
    bad = {**good, "indicators": ["NOPE"]}

    async def jobs(count):
        worker = await handler.worker()
        for number in range(count):
            await handler({"id": "j", "input": good if number % 2 else bad})
            await worker.memory.idle()
        gc.collect()

    gc.freeze()  # imported objects; otherwise the garbage collection after every job takes a quarter of a second
    runner.run(jobs(6))
    before = resident_mb()
    runner.run(jobs(16))
    # One job's columns are 1.2 MB as doubles, in the message and in the panels: 16 leaked jobs would be 37 MB.
    assert resident_mb() - before < 15
    runner.run(handler.worker()).close()
