"""First-order linear recurrences along the last axis, in blocks instead of bar by bar.

Owns the scans for moving averages; the other modules choose the recurrence for an indicator.

Both functions split time into blocks, solve all blocks in parallel from a zero start, scan the last values of the
blocks by the same method, and add the inherited value to each block: Blelloch, "Prefix sums and their applications"
(1990).
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from models.cache import cache_of_device

_BLOCK = 32


def constant(x: Tensor, decay: float, weight: float = 1.0, first: Tensor | None = None) -> Tensor:
    """y[t] = decay * y[t-1] + weight * x[t] for x [rows, bars], with y[-1] = 0; or with y[0] = first [rows], if given.

    A block is one small triangular matrix product.
    """
    rows, bars = x.shape
    blocks = bars // _BLOCK + 1
    x = F.pad(x, (0, blocks * _BLOCK - bars))
    if first is not None:
        x[:, 0] = first / weight
    powers = _powers(decay, x.device)
    y = x.view(rows, blocks, _BLOCK) @ (powers * weight)
    if blocks > 1:
        inherited = constant(y[:, :-1, -1], decay**_BLOCK)
        # The first row of the triangle is decay**0, decay**1, ...: the share of a value in the following results.
        y[:, 1:].addcmul_(inherited.unsqueeze(-1), decay * powers[0])
    return y.view(rows, -1)[:, :bars]


def varying(decay: Tensor, x: Tensor) -> Tensor:
    """y[t] = decay[t] * y[t-1] + x[t] with y[-1] = 0, for decay and x [rows, bars]."""
    rows, bars = x.shape
    blocks = -(-bars // _BLOCK)
    padding = (0, blocks * _BLOCK - bars)
    # The position in the block is the first axis, so that a step over all blocks of all rows reads contiguous memory.
    product, y = (F.pad(each, padding).view(rows, blocks, _BLOCK).permute(2, 0, 1).contiguous() for each in (decay, x))
    for position in range(1, _BLOCK):
        y[position].addcmul_(product[position], y[position - 1])
        product[position].mul_(product[position - 1])
    if blocks > 1:
        inherited = varying(product[-1, :, :-1], y[-1, :, :-1])
        y[:, :, 1:].addcmul_(product[:, :, 1:], inherited)
    return y.permute(1, 2, 0).reshape(rows, -1)[:, :bars]


@cache_of_device(lru_cache(maxsize=256))
def _powers(decay: float, device: torch.device) -> Tensor:
    """The matrix [block, block] with decay**(j - i) where j >= i, and 0 below."""
    index = torch.arange(_BLOCK, device=device, dtype=torch.float64)
    exponent = index - index.unsqueeze(1)
    return torch.where(exponent >= 0, decay ** exponent.clamp(min=0), 0.0)
