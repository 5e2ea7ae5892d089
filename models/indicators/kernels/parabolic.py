"""SAR over [rows, bars].

SAR is a state machine: every step depends on a comparison with the previous step, and no scan combines such steps.
Therefore the bars are a loop, and only the rows are computed in parallel.
"""

import torch
from torch import Tensor


def stop_and_reverse(high: Tensor, low: Tensor, acceleration: float, maximum: float) -> Tensor:
    """SAR, from the second bar on; long at first unless the low falls by more than the high rises."""
    acceleration = min(acceleration, maximum)
    highs, lows = high.T.contiguous(), low.T.contiguous()
    fall, rise = lows[0] - lows[1], highs[1] - highs[0]
    long = ~((fall > 0) & (fall > rise))
    stop = torch.where(long, lows[0], highs[0])
    extreme = torch.where(long, highs[1], lows[1])
    pace = torch.full_like(stop, acceleration)
    stops = torch.empty_like(highs[1:])
    # The first step has no earlier bar within the trade and uses the range of the bar itself.
    before_high, before_low = highs[1], lows[1]
    for bar, (now_high, now_low) in enumerate(zip(highs[1:], lows[1:], strict=True)):
        top, bottom = torch.maximum(before_high, now_high), torch.minimum(before_low, now_low)
        hit = torch.where(long, now_low <= stop, now_high >= stop)
        stop = torch.where(hit, _outside(extreme, ~long, top, bottom), stop)
        stops[bar] = stop
        long = long ^ hit
        reached = torch.where(long, now_high, now_low)
        further = torch.where(long, now_high > extreme, now_low < extreme)
        extreme = torch.where(hit | further, reached, extreme)
        faster = torch.where(further, (pace + acceleration).clamp_(max=maximum), pace)
        pace = torch.where(hit, acceleration, faster)
        stop = _outside(stop + pace * (extreme - stop), long, top, bottom)
        before_high, before_low = now_high, now_low
    return stops.T


def _outside(stop: Tensor, long: Tensor, top: Tensor, bottom: Tensor) -> Tensor:
    """The stop, limited to below the last two bars in a long trade and above the last two bars in a short trade."""
    return torch.where(long, torch.minimum(stop, bottom), torch.maximum(stop, top))
