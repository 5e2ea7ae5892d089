"""A batch of panels on a device gives the answers of TA-Lib for single panels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.indicators import COLUMNS, Panel, Spec, Task, compile, load  # noqa: A004
from models.indicators.kernels import dispatch
from models.indicators.program import Program
from models.model import ModelUnavailableError

PROGRAMS = [
    compile([Spec("RSI"), Spec("MACD"), Spec("BBANDS")]),
    compile([Spec("KAMA", last=3), Spec("HT_TRENDLINE", last=5), Spec("CDLDOJI"), Spec("ADX", last=3)]),
    compile([Spec("SAR", last=2), Spec("OBV", last=2)]),
]


def part(panel: Panel, first: int, bars: int) -> Panel:
    return Panel(**{name: getattr(panel, name)[first : first + bars] for name in COLUMNS})


@settings(max_examples=25)
@given(
    shapes=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2000), st.integers(1, 400)), min_size=1, max_size=12)
)
def test_an_answer_does_not_depend_on_batch_and_padding(aapl: Panel, shapes: list[tuple[int, int, int]]) -> None:
    tasks = [Task(part(aapl, first, bars), PROGRAMS[program]) for program, first, bars in shapes]
    talib, kernels = load("cpu", backend="talib"), load("cpu", backend="torch")
    for task, together in zip(tasks, kernels.run(tasks), strict=True):
        (alone,) = kernels.run([task])
        (reference,) = talib.run([task])
        for row, alone_row, reference_row in zip(together, alone, reference, strict=True):
            np.testing.assert_allclose(row, alone_row, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(row, reference_row, rtol=1e-9, atol=1e-9)


def degenerate(kind: str, bars: int, price: float, seed: int) -> Panel:
    """Bars that make an indicator's denominators vanish: no range, no move, no volume, ticks, one jump."""
    rng, time = np.random.default_rng(seed), np.arange(bars)
    close = {
        "constant": np.full(bars, price),
        "jump": np.where(time < bars // 2, price, price * 1.5),
        "ticks": price + price / 128 * np.cumsum(rng.integers(-1, 2, bars)),
        "alternating": np.where(time % 2, price, price * 1.25),
        "halt": np.where(time < bars // 2, price * (1 + time / 64), price * (1 + bars // 2 / 64)),
        "last value differs": np.where(time == bars - 1, price * 2, price),
    }[kind]
    close = np.ascontiguousarray(close)
    volume = 100.0 * rng.integers(0, 2, bars)
    return Panel(open=close.copy(), high=close.copy(), low=close.copy(), close=close, volume=volume)


DEGENERATE = st.builds(
    degenerate,
    st.sampled_from(["constant", "jump", "ticks", "alternating", "halt", "last value differs"]),
    st.integers(1, 200),
    st.sampled_from([1.0, 123.456, 1e-9, 1e12]),
    st.integers(0, 1000),
)


@pytest.mark.parametrize("backend", ["talib", "torch"])
@settings(max_examples=30)
@given(panels=st.lists(DEGENERATE, min_size=2, max_size=8), programs=st.lists(st.sampled_from(PROGRAMS), min_size=8))
def test_degenerate_bars_are_answered_the_same_alone_and_in_any_batch(
    backend: str, panels: list[Panel], programs: list[Program]
) -> None:
    model = load("cpu", backend=backend)
    tasks = [Task(panel, program) for panel, program in zip(panels, programs, strict=False)]
    for together in (model.run(tasks), model.run(tasks[::-1])[::-1]):
        for task, found in zip(tasks, together, strict=True):
            (alone,) = model.run([task])
            price = np.abs(task.panel.close).max()  # a difference of prices is rounded by the size of the prices
            for row, alone_row in zip(found, alone, strict=True):
                scale = np.nanmax(np.abs(alone_row), initial=price)
                np.testing.assert_allclose(row, alone_row, rtol=1e-9, atol=1e-9 * scale)


def test_a_kernel_with_a_loop_over_bars_runs_only_for_many_rows() -> None:
    sar, rsi = compile([Spec("SAR"), Spec("RSI")]).calls
    assert not dispatch.pays(sar, 1_000)
    assert dispatch.pays(sar, 100_000)
    assert dispatch.pays(rsi, 1)


def test_the_self_test_passes() -> None:
    load("cpu", backend="torch").check()


def test_a_bucket_is_a_program_and_a_length_class(aapl: Panel) -> None:
    model = load("cpu", backend="torch")
    task = Task(part(aapl, 0, 200), PROGRAMS[0])
    assert model.bucket(task) == model.bucket(Task(part(aapl, 9, 255), PROGRAMS[0]))
    assert model.bucket(task) != model.bucket(Task(part(aapl, 0, 256), PROGRAMS[0]))
    assert model.bucket(task) != model.bucket(Task(part(aapl, 0, 200), PROGRAMS[1]))


def test_a_device_without_float64_is_refused() -> None:
    with pytest.raises(ModelUnavailableError, match="float64"):
        load("mps")


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_a_missing_device_is_named() -> None:
    with pytest.raises(ModelUnavailableError, match="no CUDA device"):
        load("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", sorted(dispatch.KERNELS))
def test_cuda_equals_the_cpu(name: str, aapl: Panel) -> None:
    program = compile([Spec(name)])
    tasks = [Task(part(aapl, first, 400 + first), program) for first in range(0, 320, 10)]
    for here, there in zip(load("cpu", backend="torch").run(tasks), load("cuda").run(tasks), strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-9, atol=1e-9)
