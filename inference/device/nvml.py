"""What the driver (NVML) says of one GPU, whoever uses it.

Owns the library's errors: without a driver there is no figure, and none that a GPU does not tell, as MIG slices do not.
What PyTorch holds of the memory is engine.py's.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import pynvml

from runtime.logs import fields

log = logging.getLogger(__name__)


class Library(Protocol):
    """The part of pynvml that is used here."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None: ...  # noqa: N802 -- NVML's names
    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Any: ...  # noqa: N802
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...  # noqa: N802
    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...  # noqa: N802


@dataclass(frozen=True, slots=True)
class Reading:
    """Bytes in use by all processes, and the share of the last moments in which a kernel ran; None where unknown."""

    used: int | None
    utilisation: float | None


class Gpu:
    """One GPU. Its methods may be called on any thread."""

    def __init__(self, library: Library, handle: Any) -> None:
        self._library = library
        self._handle = handle

    @classmethod
    def find(cls, uuid: str, library: Library = pynvml) -> "Gpu | None":
        """The GPU with this UUID (`GPU-...`), None when NVML is not there or does not know it."""
        try:
            library.nvmlInit()
            return cls(library, library.nvmlDeviceGetHandleByUUID(uuid))
        except library.NVMLError as error:
            log.warning("no figures of the GPU from its driver", extra=fields(reason=str(error)))
            return None

    def read(self) -> Reading:
        """The figures as of now."""
        memory = self._ask(self._library.nvmlDeviceGetMemoryInfo)
        rates = self._ask(self._library.nvmlDeviceGetUtilizationRates)
        return Reading(None if memory is None else int(memory.used), None if rates is None else rates.gpu / 100)

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        try:
            return question(self._handle)
        except self._library.NVMLError:
            return None
