"""No bar spoils a value after it has left the value's window."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.indicators import COLUMNS, FUNCTIONS, Panel, Program, Spec, Task, compile, load  # noqa: A004
from models.indicators.incremental import Incremental
from models.indicators.memory import bounded
from models.indicators.plan import Plan
from models.indicators.running_sums import MOST_STARTS, SpoiltSumsError, fresh_starts, is_summing

BARS = 400
TOLERANCE = 2e-9


def panel(dice: np.random.Generator, spikes: dict[int, float], volume_only: bool = False) -> Panel:
    close = 100 * np.exp(0.01 * dice.standard_normal(BARS).cumsum())
    open_ = close * (1 + 0.002 * dice.standard_normal(BARS))
    columns = [open_, np.maximum(open_, close) * 1.003, np.minimum(open_, close) * 0.997, close]
    columns.append(dice.uniform(1, 9, BARS))
    for at, times in spikes.items():
        for column in columns[4:] if volume_only else columns:
            column[at] *= times
    return Panel(*columns)


def head(whole: Panel, start: int, stop: int) -> Panel:
    return Panel(*[np.ascontiguousarray(getattr(whole, name)[start:stop]) for name in COLUMNS])


def programs() -> Iterator[Program]:
    """Every function with bounded memory; with each kind of moving average that has running sums."""
    for name, function in FUNCTIONS.items():
        kinds = [parameter.name for parameter in function.parameters if parameter.moving_average]
        for kind in (0.0, 2.0, 5.0) if kinds else (0.0,):
            if name != "MAVP":
                program = compile([Spec(name, dict.fromkeys(kinds, kind))])
                if bounded(program.calls[0]):
                    yield program


@pytest.mark.parametrize("program", list(programs()), ids=repr)
@pytest.mark.parametrize("volume_only", [False, True])
def test_a_huge_bar_changes_no_value_of_a_window_without_it(program: Program, volume_only: bool) -> None:
    lookback = program.calls[0].lookback
    for times in (1e3, 1e6, 1e12, 1e150, 1e300):
        bars = panel(np.random.default_rng(1), {60: times}, volume_only)
        whole = np.array(Plan(program, BARS).run(bars))
        alone = Plan(program, BARS)
        for at in range(max(lookback, 61 + lookback), BARS, 13):
            expected = np.array([row[-1] for row in alone.run(head(bars, at - lookback, at + 1))])
            np.testing.assert_allclose(whole[:, at], expected, rtol=1e-6, atol=1e-9, err_msg=f"{times:g} at {at}")


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "MAVP"])
@pytest.mark.parametrize("times", [1e6, 1e12])
def test_a_session_and_the_full_call_agree_after_a_huge_bar(name: str, times: float) -> None:
    if name == "ADOSC":
        times = min(times, 1e6)  # a running total by definition: a huge bar stays in the total, and takes its digits
    program = compile([Spec(name)])
    bars = panel(np.random.default_rng(2), {60: times})
    live = Incremental(program, COLUMNS, BARS)
    live.load(head(bars, 0, BARS - 1))
    newest = live.append({name: float(getattr(bars, name)[-1]) for name in COLUMNS})
    whole = np.array([row[-1] for row in Plan(program, BARS).run(bars)])
    np.testing.assert_allclose(newest, whole, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("spec", [Spec("ULTOSC"), Spec("COPPOCK"), Spec("ULTOSC", {"timeperiod1": 40.0}), Spec("MFI")])
@pytest.mark.parametrize("times", [1e6, 1e12, 1e300])
def test_a_session_and_the_full_call_agree_while_a_huge_bar_is_in_the_window(spec: Spec, times: float) -> None:
    """The sums over fewer bars than the window have lost the huge bar already."""
    program = compile([spec])
    bars = panel(np.random.default_rng(1), {60: times, 75: times})
    whole = np.array(Plan(program, BARS).run(bars))[0]
    live = Incremental(program, COLUMNS, BARS)
    live.load(head(bars, 0, 60))
    for at in range(60, 160):
        newest = live.append({name: float(getattr(bars, name)[at]) for name in COLUMNS})
        np.testing.assert_allclose(newest, whole[at], rtol=1e-6, atol=1e-9, err_msg=f"at {at}")


@settings(max_examples=40)
@given(
    st.dictionaries(st.integers(0, BARS - 1), st.sampled_from([1e5, 1e10, 1e100, 1e-5, 1e-100]), max_size=5),
    st.sampled_from([2, 7, 30, 150]),
    st.sampled_from(["SUM", "SMA", "WMA", "BBANDS"]),
)
def test_any_huge_and_tiny_bars_leave_the_values_of_the_windows(
    spikes: dict[int, float], period: int, name: str
) -> None:
    program = compile([Spec(name, {"timeperiod": float(period)})])
    lookback = program.calls[0].lookback
    bars = panel(np.random.default_rng(3), spikes)
    whole = np.array(Plan(program, BARS).run(bars))
    alone = Plan(program, BARS)
    for at in range(lookback, BARS, 7):
        window = head(bars, at - lookback, at + 1)
        expected = np.array([row[-1] for row in alone.run(window)])
        size = float(window.close.max())
        np.testing.assert_allclose(whole[:, at], expected, rtol=1e-9, atol=1e-6 * size)


def test_ordinary_bars_have_the_bits_of_talib(aapl: Panel) -> None:
    for name in ("SMA", "BBANDS", "MFI"):
        call = compile([Spec(name)]).calls[0]
        assert is_summing(call)
        assert fresh_starts([getattr(aapl, column) for column in call.function.columns], {call.lookback}) == []


def fresh(name: str, first: np.ndarray, second: np.ndarray) -> float:
    """A function's value of one window [lookback + 1], from deviations, which keep the digits that squares lose."""
    if name == "BETA":
        first, second = first[1:] / first[:-1] - 1, second[1:] / second[:-1] - 1
    across = float((first - first.mean()) @ (second - second.mean()))
    if name == "BETA":
        return across / float((first - first.mean()) @ (first - first.mean()))
    if name == "CORREL":
        return across / len(first) / float(first.std() * second.std())
    variance = float(second.var())
    return {"VAR": variance, "STDDEV": variance**0.5, "BBANDS": float(second.mean()) + 2 * variance**0.5}[name]


@pytest.mark.parametrize("name", ["VAR", "STDDEV", "BBANDS", "CORREL", "BETA"])
@pytest.mark.parametrize("times", [110.0, 300.0, 1e3, 3e3, 9e3, 1e5])
def test_a_large_bar_leaves_the_digits_of_sums_of_squares(name: str, times: float) -> None:
    program = compile([Spec(name, {"timeperiod": 30.0})])
    lookback = program.calls[0].lookback
    for seed in range(4):
        bars = panel(np.random.default_rng(seed), {60: times})
        found = np.array(Plan(program, BARS).run(bars))[0]
        pair = (bars.high, bars.low) if name in ("CORREL", "BETA") else (bars.close, bars.close)
        windows = [slice(at - lookback, at + 1) for at in range(61 + lookback, BARS)]
        expected = [fresh(name, pair[0][window], pair[1][window]) for window in windows]
        np.testing.assert_allclose(found[61 + lookback :], expected, rtol=TOLERANCE, atol=1e-12)


def test_a_start_is_found_when_the_huge_bar_leaves_the_window() -> None:
    column = np.ones(20)
    column[4] = 1e9
    assert fresh_starts([column], {3}) == [8]
    assert fresh_starts([column, -column], {3}) == [8]
    assert fresh_starts([np.zeros(20)], {3}) == []
    column[10] = 1e9
    assert fresh_starts([column], {3}) == [8, 14]


def test_bars_that_spoil_the_sums_again_and_again_are_refused_alone() -> None:
    column = np.ones(1000)
    column[::8] = 1e9
    with pytest.raises(SpoiltSumsError):
        fresh_starts([column], {2})
    program = compile([Spec("SUM", {"timeperiod": 3})])
    good = Panel(close=np.ones(1000))
    found = load().run([Task(good, program), Task(Panel(close=column), program), Task(good, program)])
    assert isinstance(found[1], SpoiltSumsError)
    assert found[0][0][-1] == found[2][0][-1] == 3.0
    # A bar that stays huge spoils nothing.
    assert not math.isnan(load().run([Task(Panel(close=np.geomspace(1, 1e300, 1000)), program)])[0][0][-1])
    assert MOST_STARTS < 1000 // 8
