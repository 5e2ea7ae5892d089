"""The thread of an engine: owns a share of a device and runs batches.

Owns the thread, the adoption of models, recovery from running out of memory, the isolation of a
failing item and the check of outcomes. Knows neither queues nor requests; torch belongs to cuda.py.
"""

import asyncio
import functools
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread, get_native_id
from time import thread_time
from typing import Any

from inference.batching.job import BatchResult
from inference.device import cuda
from inference.device.outcomes import Verify, accept, owned
from market_inference.contract.deadline import now
from market_inference.contract.errors import InternalError, OverloadedError
from runtime.foreign import contained, outcome_for
from runtime.logs import fields

log = logging.getLogger(__name__)

# A slice of a batch has at most so many times the items of the slice before.
_SLICE_GROWTH = 8
# On a CPU, a warm-up batch that would take longer is cut to its first item: batches of other models wait behind it.
WARM_UP_SECONDS = 0.1
# A batch counts as busy for at least this part of its real time, whatever the CPU time of the thread.
_MOST_CONTENTION = 8.0

Measured = Callable[[Any, Sequence[Any], float], None]
"""Receives (model, items, seconds) of a batch of a model's warm-up."""


class Engine:
    """Runs batches one at a time on a separate thread and reports on the constructing event loop.

    On CUDA every engine has a separate stream, so that batches of several engines run in parallel.
    `verify` checks each outcome of a batch, see outcomes.py.
    """

    def __init__(
        self, name: str, *, threads: int = 1, device: str = "cpu", verify: Verify = accept, nice: int = 0
    ) -> None:
        """`nice`: how far the thread gives way on a busy CPU, as of the command nice; on Linux alone."""
        self.name = name
        self._nice = nice
        self._device = device
        self._threads = threads
        self._verify = verify
        # On CUDA the thread waits for the device, so that the CPU time of the thread says nothing.
        self._clock = now if device.startswith("cuda") else thread_time
        self._loop = asyncio.get_running_loop()
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._main, name=f"engine-{name}", daemon=True)
        self._thread.start()

    def run(
        self,
        model: Any,
        items: Sequence[Any],
        done: Callable[[BatchResult], None],
        *,
        first: int = 1 << 30,
        seconds: float = float("inf"),
    ) -> None:
        """Queue a batch; `done` is called on the event loop. See run_batch() for `first` and `seconds`."""
        self._work.put(lambda: self._report(done, run_batch(model, items, first, seconds, self._verify, self._clock)))

    def post(self, function: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Queue a function that raises nothing; `done` gets the result on the event loop."""
        self._work.put(lambda: self._report(done, function()))

    async def call(self, function: Callable[[], Any]) -> Any:
        """Run any function on the device's thread."""
        reply = self._loop.create_future()

        def task() -> None:
            resolve = outcome_for(reply, function)
            self._report(lambda _: None if reply.done() else resolve(), None)

        self._work.put(task)
        return await reply

    async def adopt(self, model: Any, batches: Iterable[Sequence[Any]], measured: Measured | None = None) -> None:
        """Adopt a model from the loading thread, after prepare(): run the self-test, then the warm-up batches.

        Batches of models that serve run in between. Raises what the check or a batch raises.
        """
        await self.call(model.check)
        rest = iter(batches)
        # A batch of texts comes from the model's tokeniser.
        while batch := tuple(await self.call(functools.partial(next, rest, ()))):
            items = batch
            try:
                if not self._device.startswith("cuda"):
                    items = batch[:1]
                seconds = await self.call(functools.partial(_timed, model, items, self._clock))
                if len(items) < len(batch) and len(batch) * seconds <= WARM_UP_SECONDS:
                    items = batch
                    seconds = await self.call(functools.partial(_timed, model, items, self._clock))
            except Exception as error:
                if not cuda.is_out_of_memory(error):
                    raise
                # A model with memory for smaller batches can serve: batches of this size are halved.
                log.warning("no room to warm up", extra=fields(engine=self.name, model=model.name, items=len(items)))
            else:
                if measured is not None:
                    measured(model, items, seconds)

    async def prepare(self) -> None:
        """Make the thread ready for batches of a model that was loaded on another thread."""
        # Wait for the copies of weights on the loading thread's stream, because the engine's stream does not.
        await self.call(functools.partial(cuda.synchronize, self._device))
        # The model may be the first to have imported torch.
        await self.call(functools.partial(cuda.use_threads, self._threads))

    def _report(self, done: Callable[[Any], None], outcome: Any) -> None:
        # The loop is closed if the process stops while a batch runs.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(done, outcome)

    def _main(self) -> None:
        try:
            self._own_device()
        except BaseException:
            # Without the thread no call of the engine would ever end, and no health check would say so.
            log.critical("engine's thread failed, the process ends", exc_info=True, extra=fields(engine=self.name))
            logging.shutdown()
            os._exit(1)

    def _own_device(self) -> None:
        if self._nice and sys.platform == "linux":
            thread = get_native_id()
            # Relative, since a process without privileges may only give way further. A sandbox may refuse even that.
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + self._nice)
        cuda.use_threads(self._threads)
        with cuda.own_stream(self._device):
            while (task := self._work.get()) is not None:
                task()
                del task  # with the items, which an idle thread would hold until the next batch

    def close(self) -> None:
        """End the thread after the batches queued so far."""
        self._work.put(None)
        self._thread.join(timeout=10)


def _timed(model: Any, items: Sequence[Any], clock: Callable[[], float]) -> float:
    """Run a batch twice; the busy seconds of the second run, without the costs of a first use."""
    model.run(items)
    stopwatch = _Stopwatch(clock)
    model.run(items)
    return stopwatch.busy()


class _Stopwatch:
    """Busy seconds of this thread: by `clock`, and at least a part of the real time.

    The CPU time of the thread measures work on a CPU that other processes use, too. A model that sleeps is not free.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began, self.started = clock(), now()

    def busy(self) -> float:
        return max(self._clock() - self._began, (now() - self.started) / _MOST_CONTENTION)


def run_batch(
    model: Any,
    items: Sequence[Any],
    first: int = 1 << 30,
    seconds: float = float("inf"),
    verify: Verify = accept,
    clock: Callable[[], float] | None = None,
) -> BatchResult:
    """Run a batch in slices. An error affects as few items as can be told apart.

    The first slice has `first` items. Later slices are as large as the measured pace allows within `seconds` of the
    clock, and at most 8 times as large as the slice before. Once `seconds` are used up the batch ends; the rest of the
    items have no outcome. The common batch is one slice.
    """
    items = tuple(items)  # a model that sorts, pads or empties its list would give items the answers of others
    stopwatch = _Stopwatch(clock or now)
    result = BatchResult([], stopwatch.started, 0.0, 0.0)
    outcomes: list[Any] = []
    size = max(1, first)
    while True:
        began, piece = result.busy, items[len(outcomes) : len(outcomes) + size]
        outcomes.extend(_run_slice(model, piece, result, verify))
        result.busy = stopwatch.busy()
        remaining = seconds - result.busy
        if len(outcomes) == len(items) or remaining <= 0:
            break
        pace = max(result.busy - began, 1e-9) / len(piece)
        size = max(1, int(min(_SLICE_GROWTH * size, remaining / pace)))
    result.outcomes, result.ended = outcomes, now()
    return result


def _run_slice(model: Any, items: Sequence[Any], result: BatchResult, verify: Verify) -> Sequence[Any]:
    try:
        with contained:
            outcomes = [*_run(model, items, result)]
            invalid = verify(items, outcomes)
    except Exception:  # the engine's thread must survive any error, such as one of the device outside a model
        log.exception("batch failed", extra=fields(model=model.name, items=len(items)))
        return [InternalError() for _ in items]
    if not invalid:
        return outcomes
    log.error(
        "invalid outcomes", extra=fields(model=model.name, items=len(invalid), reason=next(iter(invalid.values())))
    )
    result.invalid += len(invalid)
    for place, mistake in invalid.items():
        outcomes[place] = InternalError(f"the answer of the model {model.name!r} to this item {mistake}")
    return outcomes


def _run(model: Any, items: Sequence[Any], result: BatchResult) -> Sequence[Any]:
    out_of_memory = False
    try:
        with contained:
            outcomes: Sequence[Any] = model.run(items)
            if len(outcomes) != len(items):
                raise RuntimeError(f"{model.name} gave {len(outcomes)} answers to {len(items)} items")
            # Not of a base class: a subclass may keep what its base class does not.
            if not vars(type(model)).get("fresh_answers"):
                outcomes = list(map(owned, outcomes))
    except Exception as error:  # a model may fail in any way; bisection finds the item that caused the failure
        out_of_memory = cuda.is_out_of_memory(error)
        if len(items) == 1 and not out_of_memory:
            log.exception("item failed", extra=fields(model=model.name, error=type(error).__name__))
            return [InternalError()]
    else:
        return outcomes
    # Outside the except block the exception is gone, and so are the frames that keep the failed batch's tensors.
    if out_of_memory:
        result.oom_recoveries += 1
        result.fitted = min(result.fitted or len(items), max(1, len(items) // 2))
        cuda.empty_cache()
        if len(items) == 1:
            return [OverloadedError("the item alone does not fit the device's memory")]
    middle = len(items) // 2
    return [*_run(model, items[:middle], result), *_run(model, items[middle:], result)]
