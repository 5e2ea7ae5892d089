"""Batches that fail on the device: memory that runs out, items that poison."""

import pytest
import torch

from inference.engine import run_batch
from wire.errors import InternalError, OverloadedError


class Tight:
    """A model whose memory holds `room` items."""

    name, version = "tight", "1"

    def __init__(self, room: int) -> None:
        self.room = room
        self.sizes: list[int] = []

    def run(self, items):
        self.sizes.append(len(items))
        if len(items) > self.room:
            raise torch.OutOfMemoryError("no room")
        return [item + 1 for item in items]


def test_a_batch_that_runs_out_of_memory_is_halved_until_it_fits_and_nobody_fails():
    model = Tight(room=3)
    ran = run_batch(model, list(range(16)))
    assert ran.answers == list(range(1, 17))
    assert ran.fitted == 2
    assert ran.oom_recoveries == 7
    assert max(model.sizes) == 16


def test_an_item_that_does_not_fit_alone_fails_alone():
    ran = run_batch(Tight(room=0), [1, 2])
    assert all(isinstance(answer, OverloadedError) for answer in ran.answers)


@pytest.mark.parametrize("poison", range(5))
def test_a_poisoned_item_is_found_by_bisection_wherever_it_is(model, poison, caplog):
    items = [RuntimeError("bad") if place == poison else place for place in range(5)]
    answers = run_batch(model, items).answers
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
