"""The cost of every TA-Lib function, for the constants of models/indicators/price.py.

    python -m benchmarks.indicator_prices

Prints ns per bar with default parameters, and ns per computed value and bar of the window with long periods: the worst
over rising, falling, constant, sawtooth and random bars. Periods without effect on the cost have a rate near 0.
"""

from time import thread_time

import numpy as np
from numpy.typing import NDArray

from models.indicators import FUNCTIONS, Panel, Program, Spec, SpecError, compile  # noqa: A004
from models.indicators.plan import Plan

BARS = 10_000
PERIOD = 2_500


def _panel(close: NDArray[np.float64], opening: NDArray[np.float64]) -> Panel:
    high, low = np.maximum(opening, close) + 0.1, np.minimum(opening, close) - 0.1
    return Panel(opening, high, low, close, np.linspace(1, 9, BARS))


def _panels() -> list[Panel]:
    dice = np.random.default_rng(0)
    rising = np.linspace(100.0, 200.0, BARS)
    walk = 100 * np.exp(0.01 * dice.standard_normal(BARS).cumsum())
    saw = 100 + 50 * (np.arange(BARS) % PERIOD) / PERIOD
    shapes = (rising, np.ascontiguousarray(rising[::-1]), np.full(BARS, 100.0), saw)
    noise = dice.uniform(50, 150, (2, BARS))
    return [*(_panel(close, close.copy()) for close in shapes), _panel(walk, 0.999 * walk), _panel(noise[0], noise[1])]


def _ns_per_bar(program: Program, panels: list[Panel]) -> float:
    plan = Plan(program, BARS)
    times = []
    for panel in panels:
        began = thread_time()
        plan.run(panel)
        times.append(thread_time() - began)
    return max(times) / BARS * 1e9


def main() -> None:
    panels = _panels()
    print(f"{'function':22}{'ns per bar':>12}{'ns per value and bar of the window':>40}")
    for name, function in FUNCTIONS.items():
        periods = [one.name for one in function.parameters if one.integer and not one.moving_average]
        try:
            plain = _ns_per_bar(compile([Spec(name)]), panels)
            long = compile([Spec(name, {period: float(PERIOD // len(periods)) for period in periods})])
        except SpecError:
            continue
        computed = max(1, BARS - long.calls[0].lookback)
        rate = (_ns_per_bar(long, panels) - plain) * BARS / computed / PERIOD if periods else 0.0
        print(f"{name:22}{plain:12.1f}{max(rate, 0.0):40.3f}")


if __name__ == "__main__":
    main()
