"""The model interface for the batcher."""

import numpy as np
import pytest

from models.indicators import COLUMNS, Panel, Spec, Task, compile, load  # noqa: A004
from models.indicators.talib_model import TALibModel


def head(panel: Panel, bars: int) -> Panel:
    return Panel(**{name: getattr(panel, name)[:bars] for name in COLUMNS})


def test_the_self_test_passes() -> None:
    load().check()


def test_the_self_test_fails_on_a_wrong_number(monkeypatch: pytest.MonkeyPatch) -> None:
    model = TALibModel()
    right = model.run
    monkeypatch.setattr(model, "run", lambda items: [answer * (1 + 1e-8) for answer in right(items)])
    with pytest.raises(RuntimeError, match="SMA differs"):
        model.check()


def test_an_answer_does_not_depend_on_the_batch(aapl: Panel) -> None:
    model = load()
    programs = [compile([Spec("RSI"), Spec("MACD")]), compile([Spec("CDLDOJI", last=2)]), compile([Spec("ADX")])]
    tasks = [Task(head(aapl, bars), program) for bars in (30, 700, 2_500) for program in programs]
    together = model.run(tasks)
    for task, answer in zip(tasks, together, strict=True):
        np.testing.assert_array_equal(answer, load().run([task])[0])


def test_cost_is_bars_times_functions(aapl: Panel) -> None:
    task = Task(head(aapl, 100), compile([Spec("RSI"), Spec("MACD")]))
    assert load().units(task) == 200
