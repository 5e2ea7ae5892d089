"""Batches that fail on the device: memory that runs out, items that poison."""

import asyncio
import subprocess
import sys
import time
from functools import partial
from operator import iadd
from threading import current_thread

import numpy as np
import pytest

from inference.calls.texts import PREPARATION
from inference.device import engine as engine_module
from inference.device import warmup
from inference.device.cuda import limit_memory
from inference.device.engine import run_batch
from market_inference.contract.errors import InternalError, OverloadedError
from models import forecast, indicators, sentiment
from models.forecast.calibrated import Calibrated
from models.forecast.series import Phases
from runtime.foreign import EscapedError


class Tight:
    """A model with memory for `room` items."""

    name, version = "tight", "1"

    def __init__(self, room: int) -> None:
        self.room = room
        self.sizes: list[int] = []

    def run(self, items):
        self.sizes.append(len(items))
        if len(items) > self.room:
            import torch

            raise torch.OutOfMemoryError("no room")
        return [item + 1 for item in items]


@pytest.mark.needs("torch")
def test_a_batch_that_runs_out_of_memory_is_halved_until_it_fits_and_nobody_fails():
    model = Tight(room=3)
    ran = run_batch(model, list(range(16)))
    assert ran.outcomes == list(range(1, 17))
    assert ran.fitted == 2
    assert ran.oom_recoveries == 7
    assert max(model.sizes) == 16


@pytest.mark.needs("torch")
def test_an_item_that_does_not_fit_alone_fails_alone():
    ran = run_batch(Tight(room=0), [1, 2])
    assert all(isinstance(answer, OverloadedError) for answer in ran.outcomes)


@pytest.mark.parametrize("poison", range(5))
def test_a_poisoned_item_is_found_by_bisection_wherever_it_is(model, poison, caplog):
    items = [RuntimeError("bad") if place == poison else place for place in range(5)]
    answers = run_batch(model, items).outcomes
    assert [a for a in answers if not isinstance(a, Exception)] == [2 * i for i in range(5) if i != poison]
    assert isinstance(answers[poison], InternalError)
    assert "bad" not in answers[poison].message
    assert "item failed" in caplog.text


async def test_a_failing_call_on_the_device_thread_reaches_its_caller(engine):
    def fail() -> None:
        raise RuntimeError("no such weights")

    with pytest.raises(RuntimeError, match="no such weights"):
        await engine.call(fail)
    assert await engine.call(lambda: 7) == 7


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, StopIteration])
async def test_no_call_on_the_device_thread_ends_the_thread_or_its_caller(engine, kind):
    def fail() -> None:
        raise kind("no such weights")

    with pytest.raises(EscapedError, match=kind.__name__) as caught:
        await asyncio.wait_for(engine.call(fail), 60)
    assert isinstance(caught.value.__cause__, kind)
    assert await asyncio.wait_for(engine.call(lambda: 7), 60) == 7


async def test_a_warm_up_that_cannot_be_tokenised_fails_the_adoption_alone(engine, model):
    def batches():
        yield [1]
        raise SystemExit

    with pytest.raises(EscapedError):
        await asyncio.wait_for(engine.adopt(model, batches()), 60)
    assert await asyncio.wait_for(engine.call(lambda: 7), 60) == 7


def test_a_process_without_the_thread_of_an_engine_ends():
    program = """
import asyncio
from inference.device import cuda
from inference.device.engine import Engine

cuda.use_threads = None

async def main():
    await Engine("lost").call(lambda: 7)

asyncio.run(main())
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=250, check=False)
    assert ran.returncode == 1
    assert "engine's thread failed" in ran.stderr


async def test_a_model_is_checked_and_warmed_up_on_the_thread_that_will_run_it(engine, model):
    threads = []
    plain_check, plain_run = model.check, model.run
    model.check = lambda: (threads.append(current_thread().name), plain_check())
    model.run = lambda items: (threads.append(current_thread().name), plain_run(items))[1]
    await engine.adopt(model, [[1, 2], [3]])
    assert model.batches == [[21], [1], [1], [1, 2], [1, 2], [3], [3]]
    assert set(threads) == {"engine-test"}


async def test_a_model_that_fails_to_warm_up_is_not_adopted(engine, model):
    with pytest.raises(ZeroDivisionError):
        await engine.adopt(model, [[1], [ZeroDivisionError()]])


async def test_batches_of_a_serving_model_run_between_those_of_a_warm_up(engine, model):
    serving, answers = type(model)(), []

    def batches():
        yield [1]
        engine.run(serving, [5], lambda ran: answers.append(ran.outcomes))
        yield [2]
        assert answers == [[10]]

    await engine.adopt(model, batches())
    assert model.batches[1:] == [[1], [1], [2], [2]]


@pytest.mark.needs("torch")
def test_the_memory_fraction_is_that_of_the_device_asked_for(monkeypatch):
    import torch

    asked = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *values: asked.append(values))
    limit_memory("cpu", 0.5)
    limit_memory("cuda:1", 0.5)
    assert asked == [(0.5, 1)]


@pytest.mark.parametrize(("name", "batches"), [("forecast", 28), ("sentiment", 6), ("indicators", 6)])
def test_every_bucket_is_warmed_up_on_cuda_and_the_commonest_on_the_cpu(name, batches):
    loads = {"forecast": lambda: forecast.load("auto"), "sentiment": sentiment.load, "indicators": indicators.load}
    loaded = loads[name]()
    thorough = list(warmup.batches(name, loaded, "cuda:0"))
    assert len({loaded.bucket(items[0]) for items in thorough}) == (1 if name == "sentiment" else batches)
    for common in warmup.batches(name, loaded, "cpu"):
        assert len(loaded.run(common)) == len(common)


def test_a_model_that_gives_the_wrong_number_of_answers_fails_its_items_and_not_the_engine(caplog):
    class Short:
        name, version = "short", "1"

        def run(self, items):
            return items[1:]

    answers = run_batch(Short(), [1, 2, 3]).outcomes
    assert len(answers) == 3
    assert all(isinstance(answer, InternalError) for answer in answers)
    assert "gave 0 answers to 1 items" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        lambda items: items.sort(),
        lambda items: items.pop(),
        lambda items: iadd(items, items[-1:] * 3),
        lambda items: iadd(items, [items[-1]]),
    ],
)
def test_a_model_that_changes_its_items_fails_these_items_and_crosses_no_answers(change):
    class Changing:
        name, version = "changing", "1"

        def run(self, items):
            return [2 * item for item in change(items) or items]

    outcomes = run_batch(Changing(), [3, 1, 2], first=2, seconds=60).outcomes
    assert [type(outcome) for outcome in outcomes] == [InternalError] * 3


class Reusing:
    """Answers with views of one buffer, as a network with a bound output does."""

    name, version = "reusing", "1"

    def __init__(self, form) -> None:
        self._form = form
        self._buffer = np.empty((4, 2))

    def run(self, items):
        if -1 in items:
            raise RuntimeError("bad")
        rows = self._buffer[: len(items)]
        rows[:] = np.array(items)[:, None]
        return [self._form(row) for row in rows]


class Inheriting(Reusing, forecast.embedded.Embedded):
    """A subclass says nothing about its answers by what its base class says."""


def _forecast(row) -> forecast.Forecast:
    return forecast.Forecast(row, row[None], 0.0, True, 30, 0.8, 1, phases=Phases(row, row))


@pytest.mark.parametrize("kind", [Reusing, Inheriting])
@pytest.mark.parametrize("form", [lambda row: row, lambda row: [row], _forecast, lambda row: (_forecast(row),)])
def test_an_answer_keeps_its_numbers_when_the_model_uses_its_buffer_again(kind, form):
    """In the next slice, in the other half of a batch that failed, and in the next batch."""
    model = kind(form)
    found = run_batch(model, [1, 2, -1, 3, 4], first=1, seconds=60).outcomes
    run_batch(model, [9, 9, 9, 9])
    assert isinstance(found.pop(2), InternalError)
    for outcome, number in zip(found, [1.0, 2.0, 3.0, 4.0], strict=True):
        expected = form(np.full(2, number))
        assert str(outcome) == str(expected)
        assert type(outcome) is type(expected)


LOADS = {
    **{name: partial(forecast.load, name) for name in ("auto", "auto_v1", "vol_rw", "ridge_ar")},
    "calibrated": lambda: Calibrated("desk", "1", {"*": 2.0}),
    "sentiment": sentiment.load,
    "indicators": indicators.load,
    "texts": lambda: PREPARATION,
}


@pytest.mark.parametrize("name", LOADS)
def test_the_answers_of_shipped_models_are_fresh(name):
    """Their answers are not copied."""
    model = LOADS[name]()
    assert vars(type(model))["fresh_answers"]
    if name == "texts":
        return
    (items, *_) = warmup.batches(name if name in ("sentiment", "indicators") else "forecast", model, "cpu")
    first, second = model.run(items), model.run(items)
    for one, other in zip(arrays(first), arrays(second), strict=True):
        assert not np.may_share_memory(one, other)


def arrays(answers) -> list[np.ndarray]:
    if isinstance(answers, np.ndarray):
        return [answers]
    return [one for part in answers if isinstance(part, (np.ndarray, list, tuple)) for one in arrays(part)]


class Paced:
    """Takes some seconds per item, on a clock that the test owns."""

    name, version = "paced", "1"

    def __init__(self, clock: list[float], seconds: float) -> None:
        self._clock, self._seconds = clock, seconds
        self.sizes: list[int] = []

    def run(self, items):
        self.sizes.append(len(items))
        self._clock[0] += self._seconds * len(items)
        return list(items)


@pytest.mark.parametrize(
    ("pace", "sizes", "ran"),
    [
        (2**-13, [10, 80, 410], 500),  # fast: slices grow until the batch is done
        (2**-10, [10, 80, 10], 100),  # as expected: the batch ends with its time
        (2**-4, [10], 10),  # slower than expected: the batch ends after the first slice
    ],
)
def test_a_batch_runs_in_slices_and_ends_with_its_time(monkeypatch, pace, sizes, ran):
    clock = [0.0]
    monkeypatch.setattr(engine_module, "now", lambda: clock[0])
    model = Paced(clock, pace)
    result = run_batch(model, list(range(500)), first=10, seconds=100 * 2**-10)
    assert model.sizes == sizes
    assert result.outcomes == list(range(ran))


def test_an_invalid_outcome_is_an_error_of_its_item_and_is_counted(caplog):
    class Spoiled:
        name, version = "spoiled", "1"

        def run(self, items):
            return [forecast.Forecast(np.full(1, i), np.full((1, 1), i), 0.0, True, 30, 0.8, 1) for i in items]

    def verify(items, found):
        return {place: "not finite" for place, one in enumerate(found) if not np.isfinite(one.point).all()}

    result = run_batch(Spoiled(), [1.0, float("nan"), 3.0], verify=verify)
    assert [isinstance(outcome, InternalError) for outcome in result.outcomes] == [False, True, False]
    assert result.invalid == 1
    assert "invalid outcomes" in caplog.text


@pytest.mark.parametrize("answers", [None, 7, {}, np.empty((0, 3))])
def test_answers_of_any_type_leave_the_engine_alive(answers):
    class Odd:
        name, version = "odd", "1"

        def run(self, items):
            return answers

    outcomes = run_batch(Odd(), ["a", "b", "c"]).outcomes
    assert len(outcomes) == 3
    assert all(isinstance(outcome, InternalError) for outcome in outcomes)


async def test_a_warm_up_batch_of_a_slow_model_is_one_item_on_a_cpu(engine, model):
    plain_run, measured = model.run, []

    def slow(items):
        until = time.thread_time() + 0.06
        while time.thread_time() < until:
            pass
        return plain_run(items)

    model.run = slow
    await engine.adopt(model, [[1, 2, 3]], lambda model, items, seconds: measured.append(items))
    assert model.batches == [[21], [1], [1]]
    assert measured == [(1,)]
