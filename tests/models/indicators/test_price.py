"""The cost of calls, and the division of programs by cost."""

import numpy as np
import pytest

from market_inference.contract import units
from market_inference.contract.generated import inference_pb2, requests_pb2
from models.indicators import COLUMNS, FUNCTIONS, Panel, Spec, compile  # noqa: A004
from models.indicators import price as prices
from models.indicators.plan import Plan
from models.indicators.program import WINDOWED

LONGEST = 10_000
MOST_UNITS = 6_000_000
"""60 ms of one CPU core."""


def worst(name: str) -> float:
    """The highest cost of a function over the longest panel, for any parameters."""
    rate = prices._PER_WINDOW.get(name)
    given = {}
    if rate is not None:
        given = {parameter: float(LONGEST // 2 // len(rate.parameters)) for parameter in rate.parameters}
    kinds = {parameter.name: 7.0 for parameter in FUNCTIONS[name].parameters if parameter.moving_average}
    return compile([Spec(name, {**given, **kinds})]).units(LONGEST)


def test_no_single_call_is_longer_than_a_batch() -> None:
    costs = {name: worst(name) for name in FUNCTIONS if name != "MAVP"}
    assert {name: cost for name, cost in costs.items() if cost > MOST_UNITS} == {}
    assert costs["CCI"] > 4_000_000


def test_a_price_names_functions_and_parameters_that_exist() -> None:
    assert set(prices._PER_BAR) <= set(FUNCTIONS)
    assert set(prices._PER_WINDOW) >= WINDOWED
    for name, rate in prices._PER_WINDOW.items():
        assert set(rate.parameters) <= {parameter.name for parameter in FUNCTIONS[name].parameters}


def test_clients_are_charged_for_what_a_call_costs() -> None:
    """The gateway knows no TA-Lib: the contract repeats the costs in round numbers."""
    assert {name: rate.parameters for name, rate in prices._PER_WINDOW.items()} == dict(units.WINDOWS)
    for name in FUNCTIONS:
        if name == "MAVP":
            continue
        spec = inference_pb2.IndicatorSpec(name=name)
        for parameter in units.WINDOWS.get(name, ()):
            spec.params[parameter] = LONGEST // 2 // len(units.WINDOWS[name])
        request = requests_pb2.ComputeIndicatorsColumns(indicators=[spec.SerializeToString()])
        request.panels.add(close=bytes(8 * LONGEST))
        cost = compile([Spec(name, dict(spec.params))]).units(LONGEST)
        assert cost / 9 < units.indicators(request) < 12 * cost, name


def test_the_cost_follows_bars_and_period_where_the_function_looks_at_the_whole_window() -> None:
    def units(name: str, period: float) -> int:
        return compile([Spec(name, {"timeperiod": period})]).units(LONGEST)

    assert units("SMA", 5000) == units("SMA", 50) == LONGEST
    assert units("CCI", 5000) > 40 * units("CCI", 50)
    assert compile([Spec("HT_SINE")]).units(LONGEST) == 72 * LONGEST


def test_a_program_is_divided_by_cost_in_order() -> None:
    program = compile([Spec("CCI", {"timeperiod": 5000}), Spec("SMA"), Spec("MACD"), Spec("CCI", {"timeperiod": 4999})])
    parts = program.split(LONGEST, 1 << 20)
    assert [repr(part) for part in parts] == ["Program(CCI)", "Program(SMA, MACD)", "Program(CCI)"]
    assert program.split(100, 1 << 20) == [program]


@pytest.mark.parametrize("name", sorted(WINDOWED))
@pytest.mark.parametrize("last", [1, 7, 399, 400, 1000])
def test_the_last_values_alone_have_the_bits_of_the_full_call(name: str, last: int) -> None:
    dice = np.random.default_rng(1)
    panels = []
    for ticks in (False, True):
        close = 100 * np.exp(0.01 * dice.standard_normal(400).cumsum())
        close = np.round(close) if ticks else close  # ties
        columns = dict.fromkeys(COLUMNS, close)
        panels.append(Panel(**{**columns, "high": close + 1, "low": close - 1}))
    for panel in panels:
        whole = Plan(compile([Spec(name)]), 512).run(panel)
        plan = Plan(compile([Spec(name, last=last)]), 512)
        for _ in range(2):
            np.testing.assert_array_equal(np.array(plan.run(panel)), np.array(whole)[:, -last:])


def test_a_panel_within_the_warm_up_has_no_values_after_a_longer_panel() -> None:
    plan = Plan(compile([Spec("AVGDEV", {"timeperiod": 50}, last=60)]), 512)
    plan.run(Panel(close=np.arange(200.0)))
    assert np.isnan(plan.run(Panel(close=np.arange(20.0)))).all()
