"""The models of every engine: known, loading, ready or failed.

Owns the life of a model: loading, replacement by a newer version, unloading when idle. A failed model fails only the
calls that name it, and is tried again after some time. A model loads on a thread of its own; `adopt` (check, warm-up)
runs on the thread of the model's engine. A batch keeps the model it was formed for, so that a replacement disturbs no
request.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from market_inference.contract.deadline import now
from market_inference.contract.errors import ServiceUnavailableError, UnknownModelError
from models.model import ModelUnavailableError
from runtime.logs import fields

log = logging.getLogger(__name__)

RETRY_FAILED_AFTER = 30.0

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
    model: Any = None
    failure: str = ""
    retry_at: float = 0.0
    used: float = 0.0
    loading: asyncio.Task[None] | None = field(default=None, repr=False)


class Catalog:
    """The models of every engine by name. All methods are called on the event loop's thread."""

    def __init__(self, slots: Iterable[Slot], adopt: Adopt = check) -> None:
        self._adopt = adopt
        self._slots = {(slot.engine, slot.name): slot for slot in slots}
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
            raise UnknownModelError(engine, name, [known for of, known in self._slots if of == engine])
        return slot

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
        slot.loading = asyncio.create_task(self._load(slot))
        await asyncio.shield(slot.loading)
        if slot.failure:
            failure = slot.failure
            if before is not load:
                # A failure of the new version does not affect the present version.
                slot.load, slot.failure, slot.retry_at = before, "", 0.0
            raise ServiceUnavailableError(f"the {engine} model {name!r} was not replaced: {failure}")

    def unload(self, slot: Slot) -> None:
        """Unload a model. Running batches complete with it; the next request that names the model loads it again."""
        slot.model = None
        log.info("model unloaded", extra=fields(engine=slot.engine, model=slot.name))

    def unload_idle(self, seconds: float) -> None:
        """Unload the models without a request for `seconds`, except defaults."""
        for slot in self._slots.values():
            if slot.model is not None and not slot.is_default and now() - slot.used > seconds:
                self.unload(slot)

    async def _load(self, slot: Slot) -> None:
        began = now()
        try:
            model = await asyncio.to_thread(slot.load)
            await self._adopt(slot.engine, model)
            slot.model = model
            slot.failure, slot.used = "", now()
            log.info(
                "model ready",
                extra=fields(
                    engine=slot.engine, model=slot.name, version=slot.model.version, seconds=round(now() - began, 3)
                ),
            )
        except ModelUnavailableError as error:
            self._failed(slot, str(error))
        except Exception as error:  # any failure of a model's code affects that model alone
            log.exception("model failed to load", extra=fields(engine=slot.engine, model=slot.name))
            self._failed(slot, f"it failed to load ({type(error).__name__}); the service's log says why")
        finally:
            slot.loading = None

    @staticmethod
    def _failed(slot: Slot, failure: str) -> None:
        slot.failure, slot.retry_at = failure, now() + RETRY_FAILED_AFTER
        log.error("model unavailable", extra=fields(engine=slot.engine, model=slot.name, reason=failure))

    async def load_defaults(self) -> None:
        """Load every default in parallel. Failures are logged."""
        await asyncio.gather(*(self.load(slot) for slot in self._defaults.values()), return_exceptions=True)
