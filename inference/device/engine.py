"""The thread of an engine: owns a share of a device and runs batches.

Owns the thread and its CUDA stream, the adoption of models, recovery from running out of memory, the isolation of a
failing item and the check of outcomes. Knows neither queues nor requests.
"""

import asyncio
import functools
import gc
import logging
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from time import thread_time
from typing import Any

import torch

from inference.batching.job import BatchResult
from inference.device.outcomes import Verify, accept
from market_inference.contract.deadline import now
from market_inference.contract.errors import InternalError, OverloadedError
from runtime.logs import fields

log = logging.getLogger(__name__)

# A slice of a batch has at most so many times the items of the slice before.
_SLICE_GROWTH = 8
# A batch counts as busy for at least this part of its real time, whatever the CPU time of the thread.
_MOST_CONTENTION = 8.0

Measured = Callable[[Any, Sequence[Any], float], None]
"""Receives (model, items, seconds) of a batch of a model's warm-up."""


class Engine:
    """Runs batches one at a time on a separate thread and reports on the constructing event loop.

    On CUDA every engine has a separate stream, so that batches of several engines run in parallel.
    `verify` checks each outcome of a batch, see outcomes.py.
    """

    def __init__(self, name: str, *, threads: int = 1, device: str = "cpu", verify: Verify = accept) -> None:
        self.name = name
        self._device = device
        self._threads = threads
        self._verify = verify
        # On CUDA the thread waits for the device, so that the CPU time of the thread says nothing.
        self._clock = now if device.startswith("cuda") else thread_time
        self._loop = asyncio.get_running_loop()
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._own_device, name=f"engine-{name}", daemon=True)
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
            try:
                outcome, resolve = function(), reply.set_result
            except Exception as error:  # noqa: BLE001 -- raised in the caller, who awaits it
                outcome, resolve = error, reply.set_exception
            self._report(lambda value: None if reply.done() else resolve(value), outcome)

        self._work.put(task)
        return await reply

    async def adopt(self, model: Any, batches: Iterable[Sequence[Any]], measured: Measured | None = None) -> None:
        """Adopt a model from the loading thread: run the self-test, then the warm-up batches.

        Batches of models that serve run in between. Raises what the check or a batch raises.
        """
        await self.call(self._await_device)
        await self.call(model.check)
        for items in batches:
            try:
                seconds = await self.call(functools.partial(_timed, model, items, self._clock))
            except torch.OutOfMemoryError:
                # A model with memory for smaller batches can serve: batches of this size are halved.
                log.warning("no room to warm up", extra=fields(engine=self.name, model=model.name, items=len(items)))
            else:
                if measured is not None:
                    measured(model, items, seconds)

    def _await_device(self) -> None:
        """Wait for the copies of weights on the loading thread's stream, because the engine's stream does not."""
        if self._device.startswith("cuda"):
            torch.cuda.synchronize(self._device)

    def _report(self, done: Callable[[Any], None], outcome: Any) -> None:
        # The loop is closed if the process stops while a batch runs.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(done, outcome)

    def _own_device(self) -> None:
        torch.set_num_threads(self._threads)
        with own_stream(self._device):
            while (task := self._work.get()) is not None:
                task()

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
        outcomes = _run(model, items, result)
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
    return [invalid_error(model) if place in invalid else outcome for place, outcome in enumerate(outcomes)]


def invalid_error(model: Any) -> InternalError:
    """The error of an item whose outcome cannot be an answer."""
    return InternalError(f"the model {model.name!r} gave no finite answer for this item")


def _run(model: Any, items: Sequence[Any], result: BatchResult) -> Sequence[Any]:
    out_of_memory = False
    try:
        outcomes: Sequence[Any] = model.run(items)
        if len(outcomes) != len(items):
            raise RuntimeError(f"{model.name} gave {len(outcomes)} answers to {len(items)} items")
    except torch.OutOfMemoryError:
        out_of_memory = True
    except Exception as error:  # a model may fail in any way; bisection finds the item that caused the failure
        if len(items) == 1:
            log.exception("item failed", extra=fields(model=model.name, error=type(error).__name__))
            return [InternalError()]
    else:
        return outcomes
    # Outside the except block the exception is gone, and so are the frames that keep the failed batch's tensors.
    if out_of_memory:
        result.oom_recoveries += 1
        result.fitted = min(result.fitted or len(items), max(1, len(items) // 2))
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(items) == 1:
            return [OverloadedError("the item alone does not fit the device's memory")]
    middle = len(items) // 2
    return [*_run(model, items[:middle], result), *_run(model, items[middle:], result)]


def own_stream(device: str) -> AbstractContextManager[Any]:
    """On CUDA, a context in which the thread's kernels run on a new stream of the device; elsewhere without effect."""
    if not device.startswith("cuda"):
        return nullcontext()
    return torch.cuda.stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]


def limit_memory(device: str, fraction: float) -> None:
    """Limit the process's tensors to a fraction of a CUDA device's memory. Above, torch raises OutOfMemoryError."""
    if device.startswith("cuda"):
        index = torch.device(device).index
        torch.cuda.set_per_process_memory_fraction(fraction, torch.cuda.current_device() if index is None else index)


def release_memory() -> None:
    """Return unused memory of the device's allocator to the device. Called on an engine's thread, between batches."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@dataclass(frozen=True, slots=True)
class DeviceFigures:
    """The device's kind and memory in bytes (0 for a device without separate memory)."""

    kind: str
    name: str
    count: int
    allocated: int
    reserved: int
    total: int
    # The driver's UUID; empty on a CPU.
    uuid: str = ""


def pick_device(asked: str) -> str:
    """The device of the setting: `auto` is CUDA if available, else the CPU; any other value is returned unchanged."""
    if asked != "auto":
        return asked
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_figures(device: str) -> DeviceFigures:
    """The device's present figures."""
    if not device.startswith("cuda"):
        return DeviceFigures("cpu", platform.processor() or platform.machine(), os.cpu_count() or 1, 0, 0, 0)
    properties = torch.cuda.get_device_properties(device)
    return DeviceFigures(
        "cuda",
        properties.name,
        torch.cuda.device_count(),
        torch.cuda.memory_allocated(device),
        torch.cuda.memory_reserved(device),
        properties.total_memory,
        f"GPU-{properties.uuid}",
    )
