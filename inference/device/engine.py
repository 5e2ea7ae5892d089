"""The thread that owns a device's share and runs batches on it.

Owns the thread and its CUDA stream, taking models over, recovery from running out of memory, and the isolation of a
poisoned item. Knows neither queues nor requests.
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
from typing import Any

import torch

from market_inference.contract.deadline import now
from market_inference.contract.errors import InternalError, OverloadedError
from runtime.logs import fields

log = logging.getLogger(__name__)


@dataclass(slots=True)
class BatchRan:
    """A batch that has run: an answer or an exception per item."""

    answers: Sequence[Any]
    started: float
    ended: float
    fitted: int | None = None
    oom_recoveries: int = 0


class Engine:
    """Runs batches one at a time on its own thread and reports on the event loop that made it.

    On CUDA each engine has a stream of its own, so that one engine's batch fills what another's leaves idle.
    """

    def __init__(self, name: str, *, threads: int = 1, device: str = "cpu") -> None:
        self.name = name
        self._device = device
        self._threads = threads
        self._loop = asyncio.get_running_loop()
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._own_device, name=f"engine-{name}", daemon=True)
        self._thread.start()

    def run(self, model: Any, items: Sequence[Any], done: Callable[[BatchRan], None]) -> None:
        """Queue a batch; `done` is called on the event loop."""
        self._work.put(lambda: self._report(done, run_batch(model, items)))

    async def call(self, function: Callable[[], Any]) -> Any:
        """Run any function on the device's thread."""
        reply = self._loop.create_future()

        def task() -> None:
            try:
                outcome, settle = function(), reply.set_result
            except Exception as error:  # noqa: BLE001 -- handed to the caller, who awaits it
                outcome, settle = error, reply.set_exception
            self._report(lambda value: None if reply.done() else settle(value), outcome)

        self._work.put(task)
        return await reply

    async def adopt(self, model: Any, batches: Iterable[Sequence[Any]]) -> None:
        """Take a model over from the thread that loaded it: check it, then run batches that warm it up.

        Batches of models that serve already run in between. Raises what the check or a batch raises.
        """
        await self.call(self._await_device)
        await self.call(model.check)
        for items in batches:
            try:
                await self.call(functools.partial(model.run, items))
            except torch.OutOfMemoryError:
                # A model that has room for smaller batches can serve; requests of this size are halved.
                log.warning("no room to warm up", extra=fields(engine=self.name, model=model.name, items=len(items)))

    def _await_device(self) -> None:
        """Weights were copied on the loading thread's stream, which this engine's does not wait for by itself."""
        if self._device.startswith("cuda"):
            torch.cuda.synchronize(self._device)

    def _report(self, done: Callable[[Any], None], outcome: Any) -> None:
        # The loop is closed when the process stops while a batch runs: nobody waits for it any more.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(done, outcome)

    def _own_device(self) -> None:
        torch.set_num_threads(self._threads)
        with stream_of_its_own(self._device):
            while (task := self._work.get()) is not None:
                task()

    def close(self) -> None:
        """End the thread once the batches handed in so far have run."""
        self._work.put(None)
        self._thread.join(timeout=10)


def run_batch(model: Any, items: Sequence[Any]) -> BatchRan:
    """Run a batch; whatever goes wrong befalls the fewest items that can be told apart."""
    ran = BatchRan([], now(), 0.0)
    try:
        ran.answers = _run(model, items, ran)
    except Exception:  # a device that fails outside a model, too, must not take the engine's thread with it
        log.exception("batch failed", extra=fields(model=model.name, items=len(items)))
        ran.answers = [InternalError()] * len(items)
    ran.ended = now()
    return ran


def _run(model: Any, items: Sequence[Any], ran: BatchRan) -> Sequence[Any]:
    out_of_memory = False
    try:
        answers: Sequence[Any] = model.run(items)
        if len(answers) != len(items):
            raise RuntimeError(f"{model.name} gave {len(answers)} answers to {len(items)} items")
    except torch.OutOfMemoryError:
        out_of_memory = True
    except Exception as error:  # a model may fail in any way, and the failure is the item's that caused it
        if len(items) == 1:
            log.exception("item failed", extra=fields(model=model.name, error=type(error).__name__))
            return [InternalError()]
    else:
        return answers
    # Out here the exception is gone, and with it the frames that kept the failed batch's tensors alive.
    if out_of_memory:
        ran.oom_recoveries += 1
        ran.fitted = min(ran.fitted or len(items), max(1, len(items) // 2))
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(items) == 1:
            return [OverloadedError("the item alone does not fit the device's memory")]
    middle = len(items) // 2
    return [*_run(model, items[:middle], ran), *_run(model, items[middle:], ran)]


def stream_of_its_own(device: str) -> AbstractContextManager[Any]:
    """On CUDA, what the thread starts within it goes to a new stream of the device; elsewhere, nothing changes."""
    if not device.startswith("cuda"):
        return nullcontext()
    return torch.cuda.stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]


def limit_memory(device: str, fraction: float) -> None:
    """Keep this process's tensors to a part of a CUDA device's memory; going over it is running out of memory."""
    if device.startswith("cuda"):
        index = torch.device(device).index
        torch.cuda.set_per_process_memory_fraction(fraction, torch.cuda.current_device() if index is None else index)


def release_memory() -> None:
    """Give back what the device's allocator keeps and nothing uses. Called on an engine's thread, between batches."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@dataclass(frozen=True, slots=True)
class DeviceFigures:
    """What the device is, and its memory in bytes (0 where it has none of its own)."""

    kind: str
    name: str
    count: int
    allocated: int
    reserved: int
    total: int
    # As the driver knows it; empty on a CPU.
    uuid: str = ""


def pick_device(asked: str) -> str:
    """`auto` is CUDA when there is one, else the CPU; anything else is taken as it is."""
    if asked != "auto":
        return asked
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_figures(device: str) -> DeviceFigures:
    """The device's figures as of now."""
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
