"""One spelling for numpy (on the host) and torch (on a device), so that every formula is written once.

On small batches torch's dispatch costs several times the arithmetic, and every torch operator releases the GIL. Owns
the functions with different spellings; functions with a common spelling are called through namespace().
"""

from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from models.staging import to_device

# A numpy array or a torch tensor; no common type exists.
AnyArray: TypeAlias = Any
# "cpu" is numpy's name for the device of arrays; torch.device("cpu") asks for tensors in the memory of the host.
Device: TypeAlias = torch.device | str


def namespace(array: AnyArray) -> Any:
    """The library of ``array``: numpy or torch."""
    return np if isinstance(array, np.ndarray) else torch


def settings(device: Device) -> AbstractContextManager[Any]:
    """Settings to compute on ``device``: no gradients, and no floating-point warnings.

    Formulas replace undefined values; torch reports none anyway.
    """
    return torch.inference_mode() if isinstance(device, torch.device) else np.errstate(all="ignore")


def put(array: NDArray[Any], device: Device) -> AnyArray:
    """A numpy array as the arrays of ``device`` are."""
    return to_device(array, device) if isinstance(device, torch.device) else array


def back(tensor: torch.Tensor, device: Device) -> AnyArray:
    """A tensor as the kind of array of ``device``: unchanged, or a numpy view of the memory of the host."""
    return tensor if isinstance(device, torch.device) else tensor.numpy()


def tensor(array: AnyArray) -> torch.Tensor:
    """The array as a tensor; numpy's memory is shared."""
    return array if isinstance(array, torch.Tensor) else torch.from_numpy(array)


def host(array: AnyArray) -> NDArray[Any]:
    """The array as a numpy array; waits for the device."""
    return array.cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)


def holds(condition: AnyArray) -> bool:
    """Whether all of ``condition`` is known to be true; false for tensors, because the check would wait for the device.

    Only for skipping work. The answer must not depend on the result.
    """
    return isinstance(condition, np.ndarray) and bool(condition.all())


def columns(array: AnyArray, index: AnyArray) -> AnyArray:
    """array[:, index]; numpy's indexing is slower, and its memory order slows down later operations."""
    return array.take(index, axis=1) if isinstance(array, np.ndarray) else array[:, index]


def with_rows(array: AnyArray, rows: AnyArray, values: AnyArray) -> AnyArray:
    """``array`` with ``values`` at ``rows`` (int64 [b])."""
    if isinstance(array, torch.Tensor):
        return array.index_copy(0, rows, values)
    array = array.copy()
    array[rows] = values
    return array


def largest(array: AnyArray) -> AnyArray:
    """[B]: the largest element of every row of ``array`` [B, W]; NaN for a row with a NaN."""
    return np.maximum.reduce(array, 1) if isinstance(array, np.ndarray) else array.amax(1)


def running_max(array: AnyArray) -> AnyArray:
    """The largest so far along the last axis."""
    if isinstance(array, torch.Tensor):
        return array.cummax(-1).values
    return np.maximum.accumulate(array, axis=-1)


def lower_median(array: AnyArray, mask: AnyArray | None, count: AnyArray) -> AnyArray:
    """[B, 1]: the lower median of every row over ``count`` [B] elements, with ``mask`` [B, W] 1 (None: all W)."""
    if isinstance(array, torch.Tensor):
        known = array if mask is None else torch.where(mask > 0, array, torch.nan)
        return known.nanmedian(dim=1, keepdim=True).values
    if mask is None:
        return np.sort(array, axis=1)[:, (array.shape[1] - 1) // 2, None]
    ordered = np.sort(np.where(mask > 0, array, np.inf), axis=1)
    middle = (count.astype(np.int64) - 1) // 2
    return ordered[np.arange(len(ordered)), middle][:, None]
