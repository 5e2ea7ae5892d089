"""TA-Lib through bound buffers equals TA-Lib's Python package bit for bit."""

import sys
import threading
import time

import numpy as np
import pytest
import talib

from models.indicators import COLUMNS, FUNCTIONS, Panel, Spec, compile  # noqa: A004
from models.indicators import plan as plan_module
from models.indicators.plan import Plan, Plans
from tests.eventually import eventually

COMPUTABLE = [name for name in FUNCTIONS if name != "MAVP"]


def head(panel: Panel, bars: int) -> Panel:
    return Panel(**{name: getattr(panel, name)[:bars] for name in COLUMNS})


def reference(name: str, panel: Panel, **params: float) -> np.ndarray:
    columns = [getattr(panel, column) for column in FUNCTIONS[name].columns]
    outputs = getattr(talib, name)(*columns, **params)
    return np.array(outputs if isinstance(outputs, tuple) else (outputs,), dtype=np.float64)


@pytest.mark.parametrize("name", COMPUTABLE)
def test_every_function_equals_talib_at_every_length(name: str, aapl: Panel) -> None:
    plan = Plan(compile([Spec(name)]), aapl.bars)
    # Longest panel first, so that a later, shorter panel would show values left in the buffers.
    for bars in (aapl.bars, 300, 40, 1):
        panel = head(aapl, bars)
        np.testing.assert_array_equal(plan.run(panel), reference(name, panel))


def test_parameters_reach_the_function_in_talibs_order(aapl: Panel) -> None:
    params = {"fastperiod": 5, "fastmatype": 1, "slowperiod": 17, "slowmatype": 2, "signalperiod": 4}
    answer = Plan(compile([Spec("MACDEXT", params)]), aapl.bars).run(aapl)
    np.testing.assert_array_equal(answer, reference("MACDEXT", aapl, **params))
    bands = {"timeperiod": 9, "nbdevup": 1.5, "nbdevdn": 2.5}
    answer = Plan(compile([Spec("BBANDS", bands)]), aapl.bars).run(aapl)
    np.testing.assert_array_equal(answer, reference("BBANDS", aapl, **bands))


def test_an_answer_is_one_array_for_equal_numbers_of_bars(aapl: Panel) -> None:
    answer = Plan(compile([Spec("MACD", last=5), Spec("CDLDOJI", last=5)]), aapl.bars).run(aapl)
    assert isinstance(answer, np.ndarray)
    assert answer.flags.c_contiguous
    np.testing.assert_array_equal(answer[:3], reference("MACD", aapl)[:, -5:])
    np.testing.assert_array_equal(answer[3:], reference("CDLDOJI", aapl)[:, -5:])


def test_an_answer_is_a_list_for_different_numbers_of_bars_and_last_may_exceed_the_panel(aapl: Panel) -> None:
    panel = head(aapl, 50)
    short, whole, more = Plan(compile([Spec("RSI", last=1), Spec("SMA"), Spec("EMA", last=99)]), 64).run(panel)
    np.testing.assert_array_equal(short, reference("RSI", panel)[0, -1:])
    np.testing.assert_array_equal(whole, reference("SMA", panel)[0])
    np.testing.assert_array_equal(more, reference("EMA", panel)[0])


def test_an_answer_is_not_changed_by_the_next_panel(aapl: Panel) -> None:
    plan = Plan(compile([Spec("SMA")]), aapl.bars)
    first = plan.run(aapl)
    kept = np.array(first)
    plan.run(Panel(close=np.ones(aapl.bars)))
    np.testing.assert_array_equal(first, kept)


def test_plans_grow_with_the_panel_and_drop_the_least_recently_used() -> None:
    a, b, c = (compile([Spec("SMA", {"timeperiod": period})]) for period in (3, 4, 5))
    plans = Plans(limit=3 * Plan(a, 1024).nbytes)
    assert plans.of(a, 100) is plans.of(a, 200)
    assert plans.of(a, 1000).capacity == 1024
    kept, dropped = plans.of(a, 1), plans.of(b, 1024)
    plans.of(a, 1)
    plans.of(c, 2048)
    assert plans.of(a, 1) is kept
    assert plans.of(b, 1) is not dropped


def turns_of_another_thread(plan: Plan, panel: Panel) -> int:
    """The number of turns of another, always ready, Python thread during the run of a plan."""
    started, ended = threading.Event(), threading.Event()
    turns: list[int] = []

    def observe() -> None:
        started.wait()
        count = 0
        while not ended.is_set():
            count += 1
            time.sleep(0)
        turns.append(count)

    observer = threading.Thread(target=observe)
    observer.start()
    started.set()
    plan.run(panel)
    ended.set()
    observer.join(60)
    return turns[0]


def test_only_long_panels_release_the_interpreter_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    program = compile([Spec("MIDPRICE", {"timeperiod": 500}, last=1)] * 20)
    prices = np.abs(np.sin(np.arange(100_000) ** 1.5))
    panel = Panel(high=prices, low=prices)
    plan = Plan(program, len(prices))
    interval = sys.getswitchinterval()
    # Without preemption another thread runs only when the lock is released: by each TA-Lib call for about a
    # millisecond, and by numpy's copies for a moment.
    sys.setswitchinterval(1e3)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(plan_module, "_LOCK_RELEASED_ABOVE", len(prices))
            held = turns_of_another_thread(plan, panel)
        # On a busy machine, a released lock does not always find the other thread on a core.
        eventually(lambda: turns_of_another_thread(plan, panel), lambda released: released > 10 * max(held, 1))
    finally:
        sys.setswitchinterval(interval)


def test_two_threads_never_share_a_plan() -> None:
    plans, program = Plans(1 << 20), compile([Spec("SMA")])
    found: list[Plan] = []
    thread = threading.Thread(target=lambda: found.append(plans.of(program, 100)))
    thread.start()
    thread.join()
    assert found[0] is not plans.of(program, 100)
    assert plans.of(program, 100) is plans.of(program, 100)
