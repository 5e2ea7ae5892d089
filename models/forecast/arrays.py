"""One spelling for numpy (on the host) and torch (on a device), so that every formula is written once.

On small batches torch's dispatch costs several times the arithmetic, and every torch operator releases the GIL. Owns
the functions with different spellings; functions with a common spelling are called through namespace(). Torch is
imported for tensors only.
"""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

# A numpy array or a torch tensor; no common type exists.
AnyArray: TypeAlias = Any
# "cpu" is numpy's name for the device of arrays; torch.device("cpu") asks for tensors in the memory of the host.
Device: TypeAlias = Union["torch.device", str]


def namespace(array: AnyArray) -> Any:
    """The library of ``array``: numpy or torch."""
    if isinstance(array, np.ndarray):
        return np
    import torch

    return torch


def settings(device: Device) -> AbstractContextManager[Any]:
    """Settings to compute on ``device``: no gradients, and no floating-point warnings.

    Formulas replace undefined values; torch reports none anyway.
    """
    if isinstance(device, str):
        return np.errstate(all="ignore")
    import torch

    return torch.inference_mode()


def put(array: NDArray[Any], device: Device) -> AnyArray:
    """A numpy array as the arrays of ``device`` are."""
    if isinstance(device, str):
        return array
    from models.staging import to_device

    return to_device(array, device)


def back(tensor: "torch.Tensor", device: Device) -> AnyArray:
    """A tensor as the kind of array of ``device``: unchanged, or a numpy view of the memory of the host."""
    return tensor.numpy() if isinstance(device, str) else tensor


def host(array: AnyArray) -> NDArray[Any]:
    """The array as a numpy array; waits for the device."""
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()


def holds(condition: AnyArray) -> bool:
    """Whether all of ``condition`` is known to be true; false for tensors, because the check would wait for the device.

    Only for skipping work. The answer must not depend on the result.
    """
    return isinstance(condition, np.ndarray) and np.count_nonzero(condition) == condition.size


def columns(array: AnyArray, index: AnyArray) -> AnyArray:
    """array[:, index]; numpy's indexing is slower, and its memory order slows down later operations."""
    return array.take(index, axis=1) if isinstance(array, np.ndarray) else array[:, index]


def at_most(array: AnyArray, limit: float) -> AnyArray:
    """``array`` clipped at ``limit``; numpy's clip() takes twice the time of minimum()."""
    return np.minimum(array, limit) if isinstance(array, np.ndarray) else array.clip(max=limit)


def at_least(array: AnyArray, limit: float) -> AnyArray:
    """``array`` clipped below ``limit``, as at_most()."""
    return np.maximum(array, limit) if isinstance(array, np.ndarray) else array.clip(limit)


def with_rows(array: AnyArray, rows: AnyArray, values: AnyArray) -> AnyArray:
    """``array`` with ``values`` at ``rows`` (int64 [b])."""
    if not isinstance(array, np.ndarray):
        return array.index_copy(0, rows, values)
    array = array.copy()
    array[rows] = values
    return array


def dot(first: AnyArray, second: AnyArray) -> AnyArray:
    """[B]: the products of the rows of ``first`` and ``second``, both [B, W]."""
    return np.vecdot(first, second) if isinstance(first, np.ndarray) else namespace(first).linalg.vecdot(first, second)


def largest(array: AnyArray) -> AnyArray:
    """[B]: the largest element of every row of ``array`` [B, W]; NaN for a row with a NaN."""
    return np.maximum.reduce(array, 1) if isinstance(array, np.ndarray) else array.amax(1)


def running_max(array: AnyArray) -> AnyArray:
    """The largest so far along the last axis."""
    return np.maximum.accumulate(array, axis=-1) if isinstance(array, np.ndarray) else array.cummax(-1).values


def running_min(array: AnyArray) -> AnyArray:
    """The smallest so far along the last axis."""
    return np.minimum.accumulate(array, axis=-1) if isinstance(array, np.ndarray) else array.cummin(-1).values


def gather(array: AnyArray, index: AnyArray) -> AnyArray:
    """[B, I]: the elements of every row of ``array`` [B, W] at the places ``index`` (int64 [B, I])."""
    if not isinstance(array, np.ndarray):
        return array.gather(1, index)
    # A third of the time of numpy's take_along_axis().
    return array[np.arange(len(array))[:, None], index]


def per_row(index: AnyArray, array: AnyArray) -> AnyArray:
    """[B, I]: ``index`` (int64 [1 or B, I]) for every row of ``array`` [B, ...]."""
    rows = len(array)
    return index if len(index) == rows else namespace(index).broadcast_to(index, (rows, index.shape[1]))


def windows(array: AnyArray, size: int) -> AnyArray:
    """[B, W - size + 1, size]: the windows of every row of ``array`` [B, W]; a view, not to be written."""
    return sliding_window_view(array, size, 1) if isinstance(array, np.ndarray) else array.unfold(1, size, 1)


def pad_left(array: AnyArray, places: int) -> AnyArray:
    """``array`` [B, W] with ``places`` zeros before every row."""
    if isinstance(array, np.ndarray):
        # A tenth of the time of numpy's pad().
        padded = np.zeros((len(array), places + array.shape[1]), dtype=array.dtype)
        padded[:, places:] = array
        return padded
    import torch

    return torch.nn.functional.pad(array, (places, 0))


def whole(array: AnyArray) -> AnyArray:
    """``array`` as int64."""
    return array.astype(np.int64) if isinstance(array, np.ndarray) else array.long()


def lower_median(array: AnyArray, mask: AnyArray | None, count: AnyArray) -> AnyArray:
    """[B, 1]: the lower median of every row over ``count`` [B] elements, with ``mask`` [B, W] 1 (None: all W)."""
    if not isinstance(array, np.ndarray):
        known = array if mask is None else array.masked_fill(mask <= 0, np.nan)
        return known.nanmedian(dim=1, keepdim=True).values
    if mask is None:
        return np.sort(array, axis=1)[:, (array.shape[1] - 1) // 2, None]
    ordered = np.sort(np.where(mask > 0, array, np.inf), axis=1)
    middle = (count.astype(np.int64) - 1) // 2
    return ordered[np.arange(len(ordered)), middle][:, None]
