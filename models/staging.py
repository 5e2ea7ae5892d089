"""Copies of host arrays to a device.

On CUDA the copy goes through pinned memory and is asynchronous, so that copying overlaps with the device's work.
"""

from typing import Any

import torch
from numpy.typing import NDArray


def to_device(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """A tensor on `device` with the array's dtype. On the CPU the tensor shares the array's memory.

    No wait is needed: the caching allocator reuses a pinned block only after the copy from the block has finished.
    """
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
