"""What the service asks of torch: the device, its memory, its streams, and the threads of torch on a CPU.

Torch is imported only where a driver for it is present, or a model has imported it. Knows neither models nor queues.
"""

import ctypes
import gc
import logging
import os
import platform
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from runtime.extra import ExtraMissingError, install
from runtime.settings import SettingsError

log = logging.getLogger(__name__)

_DRIVERS = ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1",)
_AMD_DRIVER = Path("/dev/kfd")


def pick_device(asked: str) -> str:
    """The device of the setting: `auto` is CUDA if available, else the CPU; any other value is returned unchanged.

    Raises ExtraMissingError for a CUDA device without torch, SettingsError for one that torch does not find.
    """
    if asked.startswith("cuda"):
        _require(asked)
    if asked != "auto":
        return asked
    if not _driver():
        return "cpu"
    if find_spec("torch") is None:
        log.warning("a GPU's driver is here and torch is not, so the CPU is used: %s", install("cuda"))
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _require(asked: str) -> None:
    if find_spec("torch") is None:
        raise ExtraMissingError(f"MARKET_INFERENCE_DEVICE={asked}", "cuda")
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(asked.partition(":")[2] or 0) >= found:
        raise SettingsError([f"MARKET_INFERENCE_DEVICE={asked}: PyTorch finds {found} CUDA devices on this machine"])


def _driver() -> bool:
    """Whether a driver of GPUs is on this machine; torch finds no device without it, and takes seconds to say so."""
    for name in _DRIVERS:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return _AMD_DRIVER.exists()


def loaded_torch() -> Any:
    """The module torch if this process has imported it, else None, also while another thread imports it."""
    torch = sys.modules.get("torch")
    return None if getattr(getattr(torch, "__spec__", None), "_initializing", False) else torch


def is_out_of_memory(error: Exception) -> bool:
    """Whether `error` says that the device's memory is used up."""
    torch = loaded_torch()
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def synchronize(device: str) -> None:
    """On CUDA, wait until the device has finished everything; elsewhere without effect."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def use_threads(threads: int) -> None:
    """Bound the threads of torch's operators that are called from this thread, if torch is in use."""
    torch = loaded_torch()
    if torch is not None:
        torch.set_num_threads(threads)


def own_stream(device: str) -> AbstractContextManager[Any]:
    """On CUDA, a context in which the thread's kernels run on a new stream of the device; elsewhere without effect."""
    if not device.startswith("cuda"):
        return nullcontext()
    import torch

    return torch.cuda.stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]


def limit_memory(device: str, fraction: float) -> None:
    """Limit the process's tensors to a fraction of a CUDA device's memory. Above, torch raises OutOfMemoryError."""
    if device.startswith("cuda"):
        import torch

        index = torch.device(device).index
        torch.cuda.set_per_process_memory_fraction(fraction, torch.cuda.current_device() if index is None else index)


def empty_cache() -> None:
    """Return unused memory of torch's allocator to the device."""
    torch = loaded_torch()
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def release_memory() -> None:
    """Collect garbage and return unused memory to the device. Called on an engine's thread, between batches."""
    gc.collect()
    empty_cache()


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


def device_figures(device: str) -> DeviceFigures:
    """The device's present figures."""
    if not device.startswith("cuda"):
        return DeviceFigures("cpu", platform.processor() or platform.machine(), os.cpu_count() or 1, 0, 0, 0)
    import torch

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
