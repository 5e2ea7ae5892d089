"""One GPU's figures from the driver (NVML), over all processes.

Owns the library's errors: a figure is None without a driver, and where a GPU does not report the figure (MIG slices).
cuda.py reads PyTorch's own memory figures.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runtime.logs import fields

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reading:
    """Bytes used by all processes, and the share of the last sample period in which a kernel ran; None if unknown."""

    used: int | None
    utilisation: float | None


class Gpu:
    """A GPU, by the module pynvml. The methods may be called on any thread."""

    def __init__(self, library: Any, handle: Any) -> None:
        self._library = library
        self._handle = handle

    @classmethod
    def find(cls, uuid: str, library: Any = None) -> "Gpu | None":
        """The GPU with this UUID (`GPU-...`); None if NVML is not available or does not know the UUID."""
        nvml = library or _pynvml()
        try:
            nvml.nvmlInit()
            return cls(nvml, nvml.nvmlDeviceGetHandleByUUID(uuid))
        except nvml.NVMLError as error:
            log.warning("no figures of the GPU from its driver", extra=fields(reason=str(error)))
            return None

    def read(self) -> Reading:
        """The present figures."""
        memory = self._ask(self._library.nvmlDeviceGetMemoryInfo)
        rates = self._ask(self._library.nvmlDeviceGetUtilizationRates)
        return Reading(None if memory is None else int(memory.used), None if rates is None else rates.gpu / 100)

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        try:
            return question(self._handle)
        except self._library.NVMLError:
            return None


def _pynvml() -> Any:
    """Imported for a GPU only: the package comes with the extra cuda."""
    import pynvml

    return pynvml
