"""The speed of the forecasters on one core, compared with the obvious implementation in the same run.

The obvious implementation is the tests' numpy reference with equal answers, one series at a time, with a cached Student
table; for Fracast, the package as shipped. Compare ratios within a run only, because rates depend on the machine.
"""

import time
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from fracast import FracastModel

from models.forecast import Series, load
from models.forecast.series import Array
from tests.models.forecast import reference

CONTEXT, HORIZON, BATCH = 256, 24, 32
LEVELS = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))
ROUNDS = 15


def prices() -> list[Series]:
    """Random walks with a closed gate."""
    rng = np.random.default_rng(0)
    paths = (0.01 * rng.standard_t(4, (4 * BATCH, CONTEXT))).cumsum(1)
    shut = [path for path in np.exp(paths) if reference.gate(path) == 0]
    return [Series(np.ascontiguousarray(path), HORIZON, LEVELS) for path in shut[:BATCH]]


def seasonal() -> list[Series]:
    """Periodic series with an open gate."""
    rng, wave = np.random.default_rng(1), np.sin(np.arange(CONTEXT) / 3)
    return [Series(50 + 10 * wave + rng.normal(size=CONTEXT), HORIZON, LEVELS) for _ in range(BATCH)]


def seconds(*calls: Callable[[], object]) -> list[float]:
    """The shortest time of each call; the calls alternate, so that other load on the machine affects all calls."""
    best = [float("inf")] * len(calls)
    for _ in range(ROUNDS):
        for index, call in enumerate(calls):
            start = time.perf_counter()
            call()
            best[index] = min(best[index], time.perf_counter() - start)
    return best


def row(
    what: str, items: Sequence[Series], batched: Callable[[], object], plain: Callable[[], object], of: int
) -> dict[str, float]:
    """Print one line: the rate of `batched` over all `items`, and the ratio to the rate of `plain` over `of` items."""
    fast, slow = seconds(batched, plain)
    rate, obvious = len(items) / fast, of / slow
    print(f"{what:58}{rate:10,.0f}/s{obvious:10,.0f}/s{rate / obvious:8.1f}x")
    return {what: rate / obvious}


def loop(forecast: Callable[[Array, int, tuple[float, ...]], Array], items: Sequence[Series]) -> None:
    """The obvious implementation: one series after another."""
    for item in items:
        forecast(item.values, item.horizon, item.levels)


def plain_walk(values: Array, horizon: int, levels: tuple[float, ...]) -> Array:
    """The random walk and the coverage."""
    reference.vol_rw_coverage(values, horizon)
    return reference.vol_rw(values, horizon, levels)


def plain_auto(values: Array, horizon: int, levels: tuple[float, ...]) -> Array:
    """The steps of `auto` on prices: the random walk, the coverage, and the gate."""
    reference.gate(values)
    return plain_walk(values, horizon, levels)


def main() -> dict[str, float]:
    """Print the table and return the ratios."""
    torch.set_num_threads(1)
    reference.t_edges = cache(reference.t_edges)
    print(f"{'series/s, one core, context 256, horizon 24, batch 32':58}{'here':>12}{'obvious':>12}{'ratio':>9}")
    walks, waves = prices(), seasonal()
    auto, walk, ridge, fracast = (load(name, backtests=0) for name in ("auto", "vol_rw", "ridge_ar", "fracast"))
    few = walks[:8]
    ratios = row("auto on prices, coverage included", walks, lambda: auto.run(walks), lambda: loop(plain_auto, few), 8)
    ratios |= row("vol_rw, coverage included", walks, lambda: walk.run(walks), lambda: loop(plain_walk, few), 8)
    ratios |= row(
        "ridge_ar, coverage included", waves, lambda: ridge.run(waves), lambda: loop(reference.ridge_ar, waves[:2]), 2
    )
    package = FracastModel.from_pretrained()
    contexts = np.stack([item.values for item in waves[:8]])
    shipped = lambda: package.forecast_batch(contexts, horizon=HORIZON)  # noqa: E731
    eight = waves[:8]
    return ratios | row("fracast on a short window, against the package", eight, lambda: fracast.run(eight), shipped, 8)


if __name__ == "__main__":
    main()
