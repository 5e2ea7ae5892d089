"""Kernels give TA-Lib's numbers: 1e-9 of the value, or 1e-11 of the output's scale where values pass near zero.

The scale matters because such outputs are differences of larger, rounded numbers: 100 for ratios, the
price for outputs in units of price, the largest value for accumulated volume.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from bokeh_sampledata import stocks
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.indicators import COLUMNS, FUNCTIONS, Panel, Spec, batch, compile  # noqa: A004
from models.indicators.kernels import dispatch
from models.indicators.plan import Plan
from models.indicators.program import Program

# fmt: off
PROMISED = {
    "SMA", "EMA", "WMA", "DEMA", "TEMA", "KAMA", "RSI", "MACD", "STOCH", "STOCHRSI", "ADX", "PLUS_DI", "MINUS_DI",
    "ATR", "NATR", "BBANDS", "CCI", "MFI", "OBV", "AD", "ADOSC", "WILLR", "ROC", "MOM", "TRIX", "AROON", "PPO",
    "ULTOSC", "SAR", "STDDEV", "LINEARREG", "VWAP", "VWMA",
}
# fmt: on
IN_PRICE = {"APO", "MACD", "MOM", "STDDEV"}
VARIANTS: Mapping[str, list[dict[str, float]]] = {
    "ADOSC": [{"fastperiod": 12, "slowperiod": 4}],
    "ADX": [{"timeperiod": 2}, {"timeperiod": 40}],
    "APO": [{"matype": 0}],
    "AROON": [{"timeperiod": 2}, {"timeperiod": 63}],
    "BBANDS": [{"timeperiod": 7, "nbdevup": 1.5, "matype": 1}, {"matype": 3}, {"matype": 6}],
    "CCI": [{"timeperiod": 3}],
    "KAMA": [{"timeperiod": 1}, {"timeperiod": 2}],
    "MA": [{"timeperiod": period, "matype": kind} for period in (1, 2, 33) for kind in (0, 1, 2, 3, 4, 6)],
    "MACD": [{"fastperiod": 30, "slowperiod": 5, "signalperiod": 1}],
    "NATR": [{"timeperiod": 1}],
    "PLUS_DI": [{"timeperiod": 1}, {"timeperiod": 2}],
    "PPO": [{"matype": 0}, {"fastperiod": 20, "slowperiod": 6, "matype": 3}, {"matype": 6}],
    "RSI": [{"timeperiod": 2}, {"timeperiod": 100}],
    "SAR": [{"acceleration": 0.3, "maximum": 0.1}, {"acceleration": 0.05}],
    "SMA": [{"timeperiod": 1}, {"timeperiod": 64}, {"timeperiod": 255}],
    "STDDEV": [{"timeperiod": 2}, {"timeperiod": 63, "nbdev": 2.5}],
    "STOCH": [{"fastk_period": 14, "slowk_matype": 1, "slowd_matype": 2}],
    "ULTOSC": [{"timeperiod1": 20, "timeperiod2": 3, "timeperiod3": 9}],
    "VWMA": [{"timeperiod": 1}],
}
SPECS = [Spec(name, params) for name in dispatch.KERNELS for params in [{}, *VARIANTS.get(name, [])]]


def walk(bars: int, scale: float, seed: int) -> Panel:
    rng = np.random.default_rng(seed)
    close = scale * np.exp(np.cumsum(rng.normal(0, 0.02, bars)))
    opened = close * np.exp(rng.normal(0, 0.01, bars))
    high = np.maximum(opened, close) * (1 + np.abs(rng.normal(0, 0.01, bars)))
    low = np.minimum(opened, close) * (1 - np.abs(rng.normal(0, 0.01, bars)))
    return Panel(opened, high, low, close, rng.integers(0, 10**6, bars).astype(np.float64) + 1)


def ticks(bars: int, size: float, seed: int) -> Panel:
    """Prices on a grid, often unchanged: ties, flat windows, bars without range or volume."""
    rng = np.random.default_rng(seed)
    close = np.round(50 / size + np.cumsum(rng.integers(-2, 3, bars) * (rng.random(bars) < 0.4))) * size
    opened = np.concatenate([close[:1], close[:-1]])
    high = np.maximum(opened, close) + size * (rng.random(bars) < 0.2)
    low = np.minimum(opened, close) - size * (rng.random(bars) < 0.2)
    return Panel(opened, high, low, close, 100.0 * rng.integers(0, 50, bars))


def flat(price: float) -> Panel:
    return Panel(*(np.full(150, value) for value in (price, price, price, price, 1e4)))


def real(ticker: str, bars: int) -> Panel:
    return Panel(**{name: np.array(getattr(stocks, ticker)[name][:bars], dtype=np.float64) for name in COLUMNS})


PANELS: Mapping[str, Panel] = {
    "random": walk(400, 100, 1),
    "tiny": walk(400, 1e-9, 2),
    "huge": walk(400, 1e12, 3),
    "ticks": ticks(400, 0.1, 4),
    "coarse ticks": ticks(400, 0.5, 5),
    "constant": flat(123.456),
    "constant range": Panel(*(np.full(150, value) for value in (10.0, 11.0, 9.0, 10.5, 1e4))),
    "AAPL": real("AAPL", 1_300),
    **{ticker: real(ticker, 400) for ticker in ("IBM", "MSFT", "GOOG", "FB")},
}


def run(program: Program, panels: Sequence[Panel]) -> list[np.ndarray]:
    """The outputs of kernels per panel, with all panels in one batch, padded to the longest panel."""
    ((_, outputs),) = batch.compute(program, [True], panels, len(panels), torch.device("cpu"))
    return [block[:, : panel.bars] for block, panel in zip(outputs, panels, strict=True)]


def assert_equals_talib(spec: Spec, panels: Mapping[str, Panel]) -> None:
    program = compile([spec])
    assert dispatch.supports(program.calls[0])
    for (label, panel), computed in zip(panels.items(), run(program, list(panels.values())), strict=True):
        expected = Plan(program, panel.bars).run(panel)
        if spec.name in IN_PRICE:
            scale = float(np.max(panel.close))
        else:
            scale = max(100.0, float(np.nanmax(np.abs(expected), initial=0.0, where=~np.isnan(expected))))
        np.testing.assert_allclose(computed, expected, rtol=1e-9, atol=1e-11 * scale, equal_nan=True, err_msg=label)


def test_every_documented_function_has_a_kernel() -> None:
    assert set(dispatch.KERNELS) >= PROMISED
    assert set(dispatch.KERNELS) <= set(FUNCTIONS)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: " ".join([spec.name, *map(str, spec.params.values())]))
def test_a_kernel_equals_talib(spec: Spec) -> None:
    assert_equals_talib(spec, PANELS)


PERIODIC = sorted(
    name
    for name in dispatch.KERNELS
    if [parameter.name for parameter in FUNCTIONS[name].parameters] == ["timeperiod"] and name != "MA"
)


@settings(max_examples=150)
@given(
    name=st.sampled_from(PERIODIC),
    period=st.integers(2, 80),
    bars=st.integers(1, 300),
    scale=st.sampled_from([1e-6, 1.0, 1e7]),
    seed=st.integers(0, 2**32 - 1),
)
@example(name="RSI", period=31, bars=32, scale=1.0, seed=0)
@example(name="EMA", period=2, bars=64, scale=1.0, seed=0)
@example(name="KAMA", period=2, bars=33, scale=1.0, seed=0)
def test_any_period_and_length_equals_talib(name: str, period: int, bars: int, scale: float, seed: int) -> None:
    assert_equals_talib(Spec(name, {"timeperiod": period}), {"walk": walk(bars, scale, seed)})


@pytest.mark.parametrize("name", sorted(dispatch.KERNELS))
def test_a_kernel_stays_on_the_device_of_its_inputs(name: str) -> None:
    """On the meta device any mix with a CPU tensor raises, like a mix of CPU and GPU."""
    (call,) = compile([Spec(name)]).calls
    inputs = [torch.empty((3, 100), dtype=torch.float64, device="meta") for _ in call.function.columns]
    dispatch.compute(
        call, inputs, torch.empty((3, len(call.function.outputs), 100), dtype=torch.float64, device="meta")
    )


def test_an_unknown_kind_of_average_has_no_kernel() -> None:
    mama, sma = compile([Spec("BBANDS", {"matype": 7}), Spec("BBANDS")]).calls
    assert not dispatch.supports(mama)
    assert dispatch.supports(sma)
