"""One spelling for numpy and torch, so that each formula is written once: numpy on the host, torch on a device.

On small batches torch's dispatch costs several times the arithmetic, and each of its operators gives up the GIL. Owns
what the two spell differently; what they spell alike is called through namespace().
"""

from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from models.staging import to_device

# A numpy array or a torch tensor; nobody has a type for both.
AnyArray: TypeAlias = Any
# "cpu" is what numpy calls the device of its arrays; torch.device("cpu") asks for tensors in the host's memory.
Device: TypeAlias = torch.device | str


def namespace(array: AnyArray) -> Any:
    """The library of ``array``: numpy or torch."""
    return np if isinstance(array, np.ndarray) else torch


def settings(device: Device) -> AbstractContextManager[Any]:
    """How to compute on ``device``: without gradients, and without a word where a formula has no value.

    Such values are replaced; torch says nothing of them anyway.
    """
    return torch.inference_mode() if isinstance(device, torch.device) else np.errstate(all="ignore")


def put(array: NDArray[Any], device: Device) -> AnyArray:
    """A numpy array as the arrays of ``device`` are."""
    return to_device(array, device) if isinstance(device, torch.device) else array


def back(tensor: torch.Tensor, device: Device) -> AnyArray:
    """A tensor on ``device``, or in the host's memory where that is numpy's, as the arrays of ``device`` are."""
    return tensor if isinstance(device, torch.device) else tensor.numpy()


def tensor(array: AnyArray) -> torch.Tensor:
    """The array as a tensor; numpy's memory is shared."""
    return array if isinstance(array, torch.Tensor) else torch.from_numpy(array)


def host(array: AnyArray) -> NDArray[Any]:
    """The array as numpy's, once the device has it."""
    return array.cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)


def holds(condition: AnyArray) -> bool:
    """Whether all of ``condition`` is known to be true: always false for tensors, whose device one would wait for.

    For work that can be skipped then, never for what an answer depends on.
    """
    return isinstance(condition, np.ndarray) and bool(condition.all())


def columns(array: AnyArray, index: AnyArray) -> AnyArray:
    """array[:, index]; numpy's own indexing is slower, and leaves an order of memory that later steps suffer from."""
    return array.take(index, axis=1) if isinstance(array, np.ndarray) else array[:, index]


def with_rows(array: AnyArray, rows: AnyArray, values: AnyArray) -> AnyArray:
    """``array`` with ``values`` in the place of its ``rows`` (int64 [b])."""
    if isinstance(array, torch.Tensor):
        return array.index_copy(0, rows, values)
    array = array.copy()
    array[rows] = values
    return array


def largest(array: AnyArray) -> AnyArray:
    """[B]: the largest element of each row [B, W]; not a number where one is."""
    return np.maximum.reduce(array, 1) if isinstance(array, np.ndarray) else array.amax(1)


def running_max(array: AnyArray) -> AnyArray:
    """The largest so far along the last axis."""
    if isinstance(array, torch.Tensor):
        return array.cummax(-1).values
    return np.maximum.accumulate(array, axis=-1)


def lower_median(array: AnyArray, mask: AnyArray | None, count: AnyArray) -> AnyArray:
    """[B, 1]: each row's lower median over the ``count`` [B] elements whose ``mask`` [B, W] is 1 (none: over all W)."""
    if isinstance(array, torch.Tensor):
        known = array if mask is None else torch.where(mask > 0, array, torch.nan)
        return known.nanmedian(dim=1, keepdim=True).values
    if mask is None:
        return np.sort(array, axis=1)[:, (array.shape[1] - 1) // 2, None]
    ordered = np.sort(np.where(mask > 0, array, np.inf), axis=1)
    middle = (count.astype(np.int64) - 1) // 2
    return ordered[np.arange(len(ordered)), middle][:, None]
