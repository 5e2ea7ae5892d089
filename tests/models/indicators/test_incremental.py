"""Every TA-Lib function bar by bar, compared with TA-Lib's full call on the same bars."""

import numpy as np
import pytest

from models.indicators import COLUMNS, FUNCTIONS, Panel, Program, Spec, Task, load
from models.indicators import compile as compile_indicators
from models.indicators.functions import PERIODS
from models.indicators.incremental import Incremental
from models.indicators.incremental_forms import form
from models.indicators.memory import bounded

BARS = 2000
# Values of a window are computed anew at each bar, so that errors do not add up; the longest window has 200 bars.
BARS_OF_WINDOWS = 500
LARGE = ("ADX", "ATR", "BBANDS", "CCI", "CORREL", "EMA", "LINEARREG", "MACD", "OBV", "RSI", "SMA", "STDDEV", "VAR")
SPECS = [Spec(name) for name, function in FUNCTIONS.items() if PERIODS not in function.columns]
MORE = [
    Spec("SMA", {"timeperiod": 200}), Spec("EMA", {"timeperiod": 2}), Spec("MA", {"matype": 1}),
    Spec("MA", {"matype": 3}), Spec("MA", {"matype": 4}), Spec("MA", {"matype": 6}), Spec("MA", {"matype": 8}),
    Spec("MACD", {"fastperiod": 30, "slowperiod": 10}), Spec("RSI", {"timeperiod": 2}), Spec("ATR", {"timeperiod": 1}),
    Spec("PLUS_DI", {"timeperiod": 1}), Spec("ADX", {"timeperiod": 5}), Spec("ADXR", {"timeperiod": 600}),
    Spec("BBANDS", {"timeperiod": 20, "matype": 1}), Spec("APO", {"matype": 0}), Spec("PPO", {"matype": 1}),
    Spec("T3", {"vfactor": 0.3}), Spec("ADOSC", {"fastperiod": 10, "slowperiod": 3}),
    Spec("DX", {"timeperiod": 2}), Spec("CMO", {"timeperiod": 2}), Spec("MINUS_DI", {"timeperiod": 2}),
    Spec("ADX", {"timeperiod": 2}),
]  # fmt: skip


def named(spec: Spec) -> str:
    return f"{spec.name}{dict(spec.params) or ''}"


def prices(scale: float, bars: int, seed: int = 1) -> Panel:
    """A random walk with a constant stretch, on which sums must be exactly zero."""
    dice = np.random.default_rng(seed)
    close = scale * np.exp(np.cumsum(dice.normal(0, 0.001, bars)))
    opened = np.r_[close[0], close[:-1]]
    high = np.maximum(opened, close) * (1 + dice.uniform(0, 0.0005, bars))
    low = np.minimum(opened, close) * (1 - dice.uniform(0, 0.0005, bars))
    columns = np.stack([opened, high, low, close])
    columns[:, 300:360] = columns[3, 300]
    return Panel(*columns, dice.integers(1, 10_000, bars).astype(float))


def bar(panel: Panel, at: int) -> dict[str, float]:
    return {name: float(getattr(panel, name)[at]) for name in COLUMNS}


def assert_equal(got: np.ndarray, want: np.ndarray) -> None:
    """Compare rows of bars to 1e-9 of the value, or near zero to 1e-9 of the output's usual size."""
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    size = np.abs(np.nan_to_num(want))
    usual = np.median(size, axis=0)
    assert np.all(np.nan_to_num(np.abs(got - want)) <= 1e-9 * np.maximum(size, usual))


def full_call(panel: Panel, program: Program) -> np.ndarray:
    """TA-Lib's values [bars, outputs]."""
    (full,) = load().run([Task(panel, program)])
    return np.asarray(full).T


def bar_by_bar(panel: Panel, program: Program, held: int) -> np.ndarray:
    live = Incremental(program, COLUMNS, held)
    return np.stack([live.append(bar(panel, at)) for at in range(panel.bars)])


def recursive_or_bounded(spec: Spec) -> bool:
    (call,) = compile_indicators([spec]).calls
    return form(call) is not None or bounded(call)


@pytest.mark.parametrize("spec", [spec for spec in (*SPECS, *MORE) if recursive_or_bounded(spec)], ids=named)
def test_the_newest_values_equal_the_full_call_over_many_bars(spec):
    program = compile_indicators([spec])
    panel = prices(100.0, BARS if form(program.calls[0]) else BARS_OF_WINDOWS)
    assert_equal(bar_by_bar(panel, program, 50), full_call(panel, program))


@pytest.mark.parametrize("name", LARGE)
def test_large_prices_with_small_moves_keep_their_digits(name):
    panel, program = prices(50_000.0, BARS), compile_indicators([Spec(name)])
    assert_equal(bar_by_bar(panel, program, 50), full_call(panel, program))


@pytest.mark.parametrize("spec", [spec for spec in (*SPECS, *MORE) if not recursive_or_bounded(spec)], ids=named)
def test_functions_without_a_recursive_form_equal_the_full_call_over_the_held_bars(spec):
    panel, program = prices(100.0, 700), compile_indicators([spec])
    assert_equal(bar_by_bar(panel, program, 700), full_call(panel, program))


@pytest.mark.parametrize("name", ["CUMSUM", "NVI", "OBV", "PVI", "PVT", "VWAP", "WAD"])
def test_totals_count_bars_that_are_no_longer_held_and_skip_what_has_no_return(name):
    panel, program = prices(100.0, 400), compile_indicators([Spec(name)])
    panel.close[[0, 50, 51, 399]] = 0.0
    panel.low[:] = np.minimum(panel.low, panel.close)
    panel.volume[[0, 1, 2, 200, 201]] = 0.0
    assert_equal(bar_by_bar(panel, program, 20), full_call(panel, program))


def test_a_corrected_bar_leaves_no_trace():
    panel, other, dice = prices(100.0, 400), prices(70.0, 400, seed=4), np.random.default_rng(5)
    names = [
        "RSI",
        "MACD",
        "BBANDS",
        "ATR",
        "SMA",
        "EMA",
        "ADX",
        "OBV",
        "AD",
        "STOCH",
        "SAR",
        "CCI",
        "KAMA",
        "TRIX",
        "ADOSC",
        "T3",
        "NATR",
        "CMO",
    ]
    program = compile_indicators([Spec(name) for name in names])
    live, got = Incremental(program, COLUMNS, 400), []
    for at in range(400):
        live.append(bar(panel if dice.random() < 0.3 else other, at))
        for _ in range(dice.integers(0, 3)):
            live.correct(bar(other, int(dice.integers(400))))
        got.append(live.correct(bar(panel, at)))
    assert_equal(np.stack(got), full_call(panel, program))


def test_recursive_functions_cover_all_bars_although_few_are_held():
    panel = prices(100.0, BARS)
    program = compile_indicators([Spec("EMA", {"timeperiod": 200}), Spec("OBV"), Spec("SMA", {"timeperiod": 7})])
    live = Incremental(program, tuple(name for name in COLUMNS if getattr(panel, name) is not None), 10)
    assert live.bars.capacity == 200
    before = live.bars._values.nbytes
    for at in range(BARS):
        values = live.append(bar(panel, at))
    assert (live.bars._values.nbytes, live.bars.held) == (before, 200)
    assert_equal(values[None], full_call(panel, program)[-1:])


def test_loading_a_history_equals_appending_bar_by_bar():
    panel = prices(100.0, 400)
    program = compile_indicators([Spec("RSI"), Spec("MACD"), Spec("STOCH"), Spec("HT_DCPERIOD")])
    one, other = Incremental(program, COLUMNS, 400), Incremental(program, COLUMNS, 400)
    for at in range(399):
        values = one.append(bar(panel, at))
    history = Panel(**{name: getattr(panel, name)[:399].copy() for name in COLUMNS})
    np.testing.assert_array_equal(other.load(history), values)
    np.testing.assert_array_equal(other.append(bar(panel, 399)), one.append(bar(panel, 399)))
