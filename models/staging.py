"""The way of host arrays onto a device.

Owns that copy alone: on CUDA through pinned memory and without waiting, so that it overlaps with the device's work.
"""

from typing import Any

import torch
from numpy.typing import NDArray


def to_device(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """The array on ``device``, of its own dtype. On the CPU it shares the array's memory.

    The caching allocator gives a pinned block out again only once its copy is through, so nothing has to wait here.
    """
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
