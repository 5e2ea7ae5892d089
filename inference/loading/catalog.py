"""The models of every engine: known, loading, ready or failed.

Owns the life of a model: loading, replacement by a newer version, unloading when idle. A failed model fails only the
calls that name it, and is tried again after some time. A model loads on a thread of its own; `adopt` (check, warm-up)
runs on the thread of the model's engine. A batch keeps the model it was formed for, so that a replacement disturbs no
request.
"""

import asyncio
import gc
import logging
import math
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

from market_inference.contract.deadline import now
from market_inference.contract.errors import ServiceUnavailableError, UnknownModelError, printable
from models.model import ModelUnavailableError
from runtime import malloc
from runtime.foreign import outcome_for
from runtime.logs import fields

log = logging.getLogger(__name__)

RETRY_FAILED_AFTER = 30.0
# A load that imports so many modules imports a package such as torch, whose 260,000 objects cost a full pass of the
# garbage collector 120 ms.
_MANY_MODULES = 100

_NOT_LOADED = "(not loaded)"
# Refused folders of the registry that an error or the status names.
_REFUSED_TOLD = 3

Adopt = Callable[[str, Any], Awaitable[None]]
"""(engine, model): prepares a loaded model for requests. Raises if the model must not serve."""


async def check(engine: str, model: Any) -> None:
    """Adopt a model by its check alone, on any thread."""
    await asyncio.to_thread(model.check)


@dataclass(slots=True)
class Slot:
    """A model's place in the catalog. `load` is called off the event loop and returns the model."""

    engine: str
    name: str
    load: Callable[[], Any]
    is_default: bool = False
    takes: tuple[str, ...] = ()
    """Optional fields of a request that the model takes, as known before the model is loaded."""
    configured: Callable[[], Any] | None = None
    """The loader from the configuration, while the registry offers another; None for a model of the registry alone."""
    offered: bool = False
    """Whether the loader comes from the registry."""
    replaces: str = ""
    """The version of the configured model in whose place the registry's model serves."""
    model: Any = None
    failure: str = ""
    logged: str = ""
    """The failure that the log had last: each further attempt with this failure adds no line."""
    retry_at: float = 0.0
    used: float = 0.0
    loading: asyncio.Task[None] | None = field(default=None, repr=False)
    # The thread that loads the model at the moment.
    thread: Thread | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Shadow:
    """A model that runs beside another one on a share of its requests. No caller gets its answers."""

    name: str
    share: float


class Catalog:
    """The models of every engine by name. All methods are called on the event loop's thread."""

    def __init__(self, slots: Iterable[Slot], adopt: Adopt = check, *, load_seconds: float = math.inf) -> None:
        """`load_seconds`: a model that takes longer to load, check and warm up has failed."""
        self._adopt = adopt
        self._load_seconds = load_seconds
        self._slots = {(slot.engine, slot.name): slot for slot in slots}
        self._shadows: dict[tuple[str, str], Shadow] = {}
        self._refused: Mapping[str, str] = {}
        self._defaults = {slot.engine: slot for slot in self._slots.values() if slot.is_default}

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots.values())

    @property
    def engines(self) -> tuple[str, ...]:
        return tuple(self._defaults)

    def default(self, engine: str) -> Slot:
        return self._defaults[engine]

    def slot(self, engine: str, name: str) -> Slot:
        """The slot of a model; an empty name stands for the default. Raises UnknownModelError."""
        slot = self._slots.get((engine, name)) if name else self._defaults[engine]
        if slot is None:
            there_are = [known for of, known in self._slots if of == engine]
            raise UnknownModelError(engine, name, there_are, self.refused(name))
        return slot

    def shadow(self, engine: str, name: str) -> Shadow | None:
        """The shadow of a model; an empty name stands for the default."""
        return self._shadows.get((engine, name or self._defaults[engine].name)) if self._shadows else None

    def set_shadows(self, shadows: Mapping[tuple[str, str], Shadow]) -> None:
        """Replace the shadows, by engine and name of the models beside which these run."""
        self._shadows = dict(shadows)

    def set_refused(self, refused: Mapping[str, str]) -> None:
        """Replace the reasons, by folder of the registry, why the folders are no models."""
        self._refused = {printable(folder): printable(reason) for folder, reason in refused.items()}

    def refused(self, name: str = "") -> str:
        """Why the folder with the model's name is no model; else the first refused folders, since names may differ."""
        folders = [name] if name in self._refused else sorted(self._refused)
        more = ", ..." if len(folders) > _REFUSED_TOLD else ""
        return "; ".join(f"{folder}: {self._refused[folder]}" for folder in folders[:_REFUSED_TOLD]) + more

    async def get(self, engine: str, name: str) -> Any:
        """The loaded model; loads the model first if necessary.

        Raises UnknownModelError, or ServiceUnavailableError if the model does not load.
        """
        slot = self.slot(engine, name)
        slot.used = now()
        if slot.model is None:
            await self.load(slot)
        return slot.model

    async def load(self, slot: Slot) -> None:
        """Load a slot's model, once for all concurrent callers. Raises ServiceUnavailableError if it does not load."""
        if slot.model is not None:
            return
        if slot.loading is None and now() >= slot.retry_at:
            slot.loading = asyncio.create_task(self._load(slot))
        if slot.loading is not None:
            await asyncio.shield(slot.loading)
        if slot.model is None:
            raise ServiceUnavailableError(
                f"the {slot.engine} model {slot.name!r} is not available: {slot.failure}",
                retry_after=max(1.0, slot.retry_at - now()),
            )

    async def replace(self, engine: str, name: str, load: Callable[[], Any]) -> None:
        """Load and adopt a new version, then swap. After a failure the present version stays.

        Adds an unknown name. Raises ServiceUnavailableError if the new version does not load.
        """
        slot = self._slots.get((engine, name))
        if slot is None:
            slot = self._slots[engine, name] = Slot(engine, name, load)
        while slot.loading is not None:
            await asyncio.wait({slot.loading})
        before, slot.load = slot.load, load
        slot.loading = asyncio.create_task(self._load(slot, raised=True))
        await asyncio.shield(slot.loading)
        if slot.failure:
            failure = slot.failure
            if before is not load:
                # A failure of the new version does not affect the present version.
                slot.load, slot.failure, slot.retry_at = before, "", 0.0
            raise ServiceUnavailableError(f"the {engine} model {name!r} was not replaced: {failure}")

    async def offer(self, engine: str, name: str, load: Callable[[], Any]) -> None:
        """Make a model of the registry known. A loaded model, and an engine's default, is replaced at once.

        Another model is loaded by the next request that names it. Raises ServiceUnavailableError as replace() does.
        """
        slot = self._slots.get((engine, name))
        if slot is not None and (slot.model is not None or slot.loading is not None or slot.is_default):
            if slot.loading is not None:
                await asyncio.wait({slot.loading})
            own = not slot.offered  # the configured model serves
            configured = slot.load if own else slot.configured
            before = slot.model.version if slot.model is not None else _NOT_LOADED
            await self.replace(engine, name, load)
            slot.configured, slot.offered = configured, True
            if own:
                _replaced(slot, before, slot.model.version)
        elif slot is None:
            self._slots[engine, name] = Slot(engine, name, load, offered=True)
        else:
            if not slot.offered:
                slot.configured = slot.load
                _replaced(slot, _NOT_LOADED, _NOT_LOADED)
            slot.load, slot.offered, slot.failure, slot.retry_at = load, True, "", 0.0

    async def withdraw(self, engine: str, name: str) -> None:
        """Forget a model that the registry offered, and unload it; batches under way complete with it.

        A configured model of the same name returns. Raises ServiceUnavailableError when that one does not load.
        """
        slot = self._slots.get((engine, name))
        if slot is None or not slot.offered:
            return
        if slot.configured is None:
            del self._slots[engine, name]
            self.unload(slot)
            return
        if slot.model is not None or slot.loading is not None:
            await self.replace(engine, name, slot.configured)
        slot.load, slot.configured, slot.offered, slot.failure, slot.retry_at = slot.configured, None, False, "", 0.0
        slot.replaces = ""

    def unload(self, slot: Slot) -> None:
        """Unload a model. Running batches complete with it; the next request that names the model loads it again."""
        slot.model = None
        log.info("model unloaded", extra=fields(engine=slot.engine, model=slot.name))

    def unload_idle(self, seconds: float) -> None:
        """Unload the models without a request for `seconds`, except defaults."""
        for slot in self._slots.values():
            if slot.model is not None and not slot.is_default and now() - slot.used > seconds:
                self.unload(slot)

    async def _load(self, slot: Slot, *, raised: bool = False) -> None:
        """`raised`: the caller raises the failure for the operator. Only the trace of a bug is logged, too."""
        began = now()
        try:
            async with asyncio.timeout(self._load_seconds if self._load_seconds < math.inf else None):
                model = await _loaded(slot)
                await self._adopt(slot.engine, model)
            slot.model = model
            slot.failure, slot.logged, slot.used = "", "", now()
            log.info(
                "model ready",
                extra=fields(
                    engine=slot.engine, model=slot.name, version=slot.model.version, seconds=round(now() - began, 3)
                ),
            )
        except ModelUnavailableError as error:
            _failed(slot, str(error), log_it=not raised)
        except TimeoutError:
            _failed(slot, f"it was not loaded within {self._load_seconds:g} s", log_it=not raised)
        except Exception as error:  # noqa: BLE001 -- any failure of a model's code affects that model alone
            _failed(slot, f"it failed to load ({type(error).__name__}); the service's log says why", bug=error)
        finally:
            slot.loading = None

    async def load_defaults(self) -> None:
        """Load every default in parallel. Failures are logged."""
        await asyncio.gather(*(self.load(slot) for slot in self._defaults.values()), return_exceptions=True)


def _failed(slot: Slot, failure: str, *, log_it: bool = True, bug: Exception | None = None) -> None:
    failure = printable(failure)
    slot.failure, slot.retry_at = failure, now() + RETRY_FAILED_AFTER
    line = repr(bug) if bug else failure
    if log_it and line != slot.logged:
        slot.logged = line
        log.error("model unavailable", exc_info=bug, extra=fields(engine=slot.engine, model=slot.name, reason=failure))


def _replaced(slot: Slot, before: str, version: str) -> None:
    """Tell the operator that the registry's model has taken the name of a configured one, perhaps by mistake."""
    slot.replaces = before
    log.warning(
        "a model of the registry replaces the configured one",
        extra=fields(engine=slot.engine, model=slot.name, version=version, replaced=before),
    )


async def _loaded(slot: Slot) -> Any:
    """Call `slot.load` on a thread of its own. Raises what it raises.

    A thread that hangs cannot be ended: the model is not tried again before the thread returns. A daemon thread does
    not keep the process from ending.
    """
    if slot.thread is not None:
        raise ModelUnavailableError("an earlier load still hangs; restart the service once the cause is mended")
    loop = asyncio.get_running_loop()
    found: asyncio.Future[Any] = loop.create_future()

    def put(resolve: Callable[[], None]) -> None:
        slot.thread = None
        if not found.done():
            resolve()

    def load() -> None:
        known = len(sys.modules)
        resolve = outcome_for(found, slot.load)
        # Reading weights frees several times the bytes of the model, and no answer needs as much again.
        malloc.trim()
        if len(sys.modules) - known >= _MANY_MODULES:
            # The packages stay as long as the process: no later pass of the garbage collector shall look at them.
            gc.freeze()
        if not loop.is_closed():
            loop.call_soon_threadsafe(put, resolve)

    slot.thread = Thread(target=load, name=f"load-{slot.name}", daemon=True)
    slot.thread.start()
    return await found
