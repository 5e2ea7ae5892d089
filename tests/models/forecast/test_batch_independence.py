"""An answer is the same alone and in any batch, for degenerate series above all.

Batch size and padding change the last bits of every sum. Statistics of degenerate series are where such bits can grow
into another answer: a residual of rounding noise, inverted, opened the gate for stale quotes.
"""

import numpy as np
import pytest
from hypothesis import example, given, settings

from models.forecast import Forecast, Series, load
from models.forecast.arrays import settings as settings_of
from models.forecast.batch import Batch
from models.forecast.embedded import Embedded
from models.forecast.walk import POOLED
from models.model import Model
from tests import extras
from tests.models.forecast.degenerate import batches, make

CLOSE = 1e-9
# A network's float32: on some processors the order of a sum depends on the number of rows.
FLOAT_CLOSE = 1e-5
NAMES = ("vol_rw", "ridge_ar", "auto")
BAND = (0.1, 0.5, 0.9)


def stale(length: int) -> Series:
    """Quotes with a single move at the start."""
    return Series(np.array([100.0] + [101.0] * (length - 1)), 5, BAND)


def assert_same(found: Forecast, expected: Forecast, close: float = CLOSE) -> None:
    """Equal to ``close`` of the answer's own size, and finite."""
    size = max(np.abs(expected.quantiles).max(), np.finfo(np.float64).tiny)
    for ours, theirs in ((found.quantiles, expected.quantiles), (found.point, expected.point)):
        assert np.isfinite(ours).all()
        assert np.isfinite(theirs).all()
        # Halved, since the difference of two numbers of the largest size overflows.
        assert np.abs(ours / 2 - theirs / 2).max() <= close * size / 2
    assert found.gate == pytest.approx(expected.gate, abs=CLOSE)
    assert (found.logs, found.context, found.coverage_count) == (
        expected.logs,
        expected.context,
        expected.coverage_count,
    )
    assert found.coverage == pytest.approx(expected.coverage, nan_ok=True)


def assert_independent(model: Model[Series, Forecast], batch: list[Series], close: float = CLOSE) -> None:
    """Every answer equals the answers of the series alone, of the batch, and of the reversed batch before the batch."""
    together, twice = model.run(batch), model.run(batch[::-1] + batch)
    turned, again = twice[: len(batch)][::-1], twice[len(batch) :]
    for place, item in enumerate(batch):
        (alone,) = model.run([item])
        for found in (together[place], turned[place], again[place]):
            assert_same(found, alone, close)


MIXED = [
    Series(make("mostly zero steps", 77, 1.0, 1.0, 1, 383), 5, BAND),
    Series(make("walk", 150, 1.0, 1.0, 1, 0), 5, BAND, period=7),
]
"""A series without a period, most of whose steps are zero, beside a series with a period."""
STALE = [stale(100), stale(31), Series(make("walk", 250, 1.0, 1.0, 1, 0), 24, BAND), stale(100)]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30)
@example(batch=STALE)
@example(batch=MIXED)
@given(batch=batches())
def test_an_answer_of_numpy_is_the_same_alone_and_in_any_batch(name: str, batch: list[Series]) -> None:
    assert_independent(load(name), batch)


@pytest.mark.needs("torch")
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12)
@example(batch=STALE)
@example(batch=MIXED)
@given(batch=batches())
def test_an_answer_of_torch_is_the_same_alone_and_in_any_batch(name: str, batch: list[Series]) -> None:
    assert_independent(Embedded(name, tensors=True), batch)


@pytest.mark.needs("torch")
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12)
@example(batch=STALE)
@given(batch=batches())
def test_numpy_and_torch_agree_on_degenerate_series(name: str, batch: list[Series]) -> None:
    for found, expected in zip(load(name).run(batch), Embedded(name, tensors=True).run(batch), strict=True):
        assert_same(found, expected)


@pytest.mark.parametrize("name", extras.forecasters("fracast", "auto_fracast"))
@settings(max_examples=5)
@example(batch=STALE[:3])
@given(batch=batches(largest=3))
def test_an_answer_of_fracast_is_the_same_alone_and_in_any_batch(name: str, batch: list[Series]) -> None:
    small = [item._replace(horizon=min(item.horizon, 60)) for item in batch]
    assert_independent(load(name, backtests=1), small, FLOAT_CLOSE)


@pytest.mark.parametrize("length", [31, 100, 1000])
@pytest.mark.parametrize("place", [1, 2, 20, -1])
@pytest.mark.parametrize("name", extras.forecasters("auto", "auto_fracast"))
def test_one_move_of_a_stale_quote_opens_no_gate(name: str, place: int, length: int) -> None:
    """The band equals the random walk's band: a regression fits a single move without error, without any evidence."""
    item = Series(np.where(np.arange(length) < place % length, 100.0, 101.0), 5, BAND)
    (found,) = load(name).run([item])
    assert found.gate == 0
    if name == "auto":
        with settings_of("cpu"):
            walk = Batch([item], "cpu", POOLED).random_walk().quantiles[0]
    else:
        walk = load("vol_rw").run([item])[0].quantiles
    np.testing.assert_array_equal(found.quantiles, walk)


GROWTH = [(rate, top, sign) for rate in (0.01, 0.5, 1.99, 2.5, 7.0) for top in (0.0, 709.0) for sign in (1.0, -1.0)]


@pytest.mark.parametrize(("rate", "top", "sign"), GROWTH)
@pytest.mark.parametrize("name", NAMES)
def test_a_year_of_exponential_growth_stays_finite(name: str, rate: float, top: float, sign: float) -> None:
    """With noise, fitted by an explosive autoregression: the steps of the forecast are bounded."""
    for length, noise in ((30, 0.0), (64, 0.05), (256, 0.05), (3000, 0.05)):
        exponent = rate * (np.arange(length) - length + 1) + top - 1
        exponent += noise * rate * np.random.default_rng(0).normal(size=length)
        (found,) = load(name).run([Series(sign * np.exp(np.minimum(exponent, 709)), 365, BAND)])
        assert np.isfinite(found.point).all()
        assert np.isfinite(found.quantiles).all()
        assert (found.quantiles[:, 1:] >= found.quantiles[:, :-1]).all()
