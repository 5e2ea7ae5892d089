"""A walk forward through past closes: many single forecasts at once, each compared with the closes that followed.

Owns the origins, the calls in flight and the coverage figures.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from market_inference.cli.demo.bars import Bars
from market_inference.cli.pair import Pair
from market_inference.client.aio import AsyncClient

ORIGINS = 40
STRIDE = 3
IN_FLIGHT = 64
LEVELS = (0.1, 0.5, 0.9)
SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Walk:
    """`held`: the share of closes inside the 80% interval, over all steps of all forecasts."""

    forecasts: int
    outcomes: int
    held: float


def run(pair: Pair, bars: Sequence[Bars], horizon: int, context: int, timeout: float) -> Walk:
    """Forecast from the last origins of every symbol, up to IN_FLIGHT calls at a time, `timeout` seconds each."""
    return asyncio.run(_run(pair, bars, horizon, context, timeout))


async def _run(pair: Pair, bars: Sequence[Bars], horizon: int, context: int, timeout: float) -> Walk:
    free = asyncio.Semaphore(IN_FLIGHT)
    async with pair.async_client(timeout=timeout) as client:
        one_by_one = (
            _inside(client, free, one, origin, horizon, context)
            for one in bars
            for origin in (len(one) - horizon - STRIDE * back for back in range(ORIGINS))
        )
        inside = np.concatenate(await asyncio.gather(*one_by_one))
    return Walk(len(inside) // horizon, len(inside), float(inside.mean()))


async def _inside(
    client: AsyncClient, free: asyncio.Semaphore, bars: Bars, origin: int, horizon: int, context: int
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """[horizon] bool: whether the close of each step lies inside the interval."""
    seen, later = bars.until(origin, context).closes, bars.closes[origin : origin + horizon]
    async with free:
        forecast = await client.predict(seen, horizon, quantiles=LEVELS, priority="batch")
    lower, upper = forecast.interval(SHARE)
    return (lower <= later) & (later <= upper)
