"""numpy on the host against torch: both run the same formulas, and have to find the same."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.forecast import Forecast, Series, arrays, load
from models.forecast.batch import Batch
from models.forecast.embedded import Embedded
from models.forecast.volatility import DECAYS
from models.forecast.walk import POOLED
from tests.models.forecast import reference
from tests.models.forecast.test_embedded import CLOSE, DEGENERATE, KINDS, LEVELS, make

NAMES = ("vol_rw", "ridge_ar", "auto")
CPU = torch.device("cpu")


def assert_same(found: Forecast, expected: Forecast) -> None:
    scale = np.abs(expected.quantiles).max()
    np.testing.assert_allclose(found.quantiles, expected.quantiles, rtol=0, atol=CLOSE * scale)
    np.testing.assert_allclose(found.point, expected.point, rtol=0, atol=CLOSE * scale)
    assert found.gate == pytest.approx(expected.gate, abs=CLOSE)
    assert (found.logs, found.context, found.coverage_count) == (
        expected.logs,
        expected.context,
        expected.coverage_count,
    )
    assert found.coverage == pytest.approx(expected.coverage, nan_ok=True)


shapes = st.tuples(st.integers(30, 300), st.integers(1, 60), st.sampled_from([LEVELS, (0.5,), (0.1, 0.9)]))


@st.composite
def batches(draw: st.DrawFn) -> list[Series]:
    """Rows of equal shape, as in most requests, or of different shapes."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=5))
    alike = draw(st.booleans())
    forms = [draw(shapes)] * len(kinds) if alike else [draw(shapes) for _ in kinds]
    seeds = [draw(st.integers(0, 1000)) for _ in kinds]
    pairs = zip(kinds, seeds, forms, strict=True)
    return [Series(make(kind, length, seed), horizon, levels) for kind, seed, (length, horizon, levels) in pairs]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15)
@given(batch=batches())
def test_numpy_answers_as_torch_does(name: str, batch: list[Series]) -> None:
    found, expected = load(name).run(batch), Embedded(name, tensors=True).run(batch)
    for answer, other in zip(found, expected, strict=True):
        assert_same(answer, other)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", DEGENERATE)
def test_numpy_answers_as_torch_does_where_formulas_have_no_value(name: str, kind: str) -> None:
    item = Series(DEGENERATE[kind], 24, LEVELS)
    assert_same(load(name).run([item])[0], Embedded(name, tensors=True).run([item])[0])


@pytest.mark.parametrize("horizon", [1, 7, 31, 64, 365])
@pytest.mark.parametrize("length", [30, 33, 256, 10_000])
def test_past_sigmas_are_those_of_each_past(length: int, horizon: int) -> None:
    """Both branches: a common horizon of all rows, and different horizons."""
    values = make("price", length, 0)
    steps = np.diff(np.log(values))
    alike = Batch([Series(values, horizon, (0.5,))], "cpu")
    mixed = Batch([Series(values, horizon, (0.5,)), Series(values, horizon + 1, (0.5,))], "cpu")
    assert alike.walk.real is None
    assert mixed.walk.real is not None
    for walk, first in ((alike.walk, 0), (mixed.walk, mixed.walk.ends.shape[1] - alike.walk.ends.shape[1])):
        for end, sigma in zip(walk.ends[0, first:], walk.sigma[0, first:], strict=True):
            mean = np.mean([reference.ewma(steps[:end], decay) for decay in DECAYS])
            np.testing.assert_allclose(sigma, 1.05 * mean * np.sqrt(horizon), rtol=1e-10)
    np.testing.assert_allclose(mixed.walk.spread[:, :horizon], alike.walk.spread[[0, 0]], rtol=1e-10)


@pytest.mark.parametrize("horizon", [1, 7, 31, 64, 364])
@pytest.mark.parametrize("length", [33, 256, 1500])
def test_past_sigmas_of_the_table_are_those_of_a_forecast_at_that_time(length: int, horizon: int) -> None:
    values = make("price", length, 0)
    alike = Batch([Series(values, horizon, (0.5,))], "cpu", POOLED)
    mixed = Batch([Series(values, horizon, (0.5,)), Series(values, horizon + 1, (0.5,))], "cpu", POOLED)
    np.testing.assert_allclose(mixed.walk.spread[:, :horizon], alike.walk.spread[[0, 0]], rtol=1e-10)
    first = mixed.walk.ends.shape[1] - alike.walk.ends.shape[1]
    np.testing.assert_allclose(mixed.walk.sigma[0, first:], alike.walk.sigma[0], rtol=1e-10)
    for end, sigma in list(zip(alike.walk.ends[0], alike.walk.sigma[0], strict=True))[-5:]:
        then = Batch([Series(values[: end + 1], horizon, (0.5,))], "cpu", POOLED)
        np.testing.assert_allclose(sigma, then.walk.spread[0, horizon - 1], rtol=1e-9)


def test_series_that_cannot_be_written_to_are_answered() -> None:
    """As read from the bytes of a request; in a batch of one series and in a padded batch."""
    item = Series(np.frombuffer(make("seasonal", 64, 0).tobytes()), 5, LEVELS)
    assert not item.values.flags.writeable
    alone = load("auto").run([item])[0]
    together = load("auto").run([item, Series(make("price", 100, 0), 5, LEVELS)])[0]
    assert_same(together, alone)


def test_lower_medians_leave_padding_out() -> None:
    values = np.array([[9.0, 1.0, 4.0, 2.0, 3.0], [9.0, 9.0, 9.0, 7.0, 5.0]])
    mask, count = np.array([[0.0, 1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0, 1.0]]), np.array([4.0, 2.0])
    np.testing.assert_array_equal(arrays.lower_median(values, mask, count), [[2], [5]])
    np.testing.assert_array_equal(arrays.lower_median(values, None, np.full(2, 5.0)), [[3], [9]])


def test_only_numpy_is_asked_whether_a_condition_holds() -> None:
    assert arrays.holds(np.array([True, True]))
    assert not arrays.holds(np.array([True, False]))
    assert not arrays.holds(torch.tensor([True, True]))


def test_arrays_are_those_of_their_device() -> None:
    values = np.ones(3)
    assert arrays.put(values, "cpu") is values
    assert isinstance(arrays.put(values, CPU), torch.Tensor)
    assert isinstance(arrays.back(torch.ones(3), "cpu"), np.ndarray)


@pytest.mark.parametrize(("length", "horizon"), [(64, 5), (1000, 1)])
def test_rows_of_one_shape_make_no_tensor_on_another_device(length: int, horizon: int) -> None:
    """On meta tensors, where any mix with a CPU tensor raises."""
    batch = Batch([Series(make("price", length, 0), horizon, (0.5,))] * 2, torch.device("meta"))
    assert (batch.path.mask, batch.walk.real) == (None, None)
    assert batch.walk.sigma.device.type == batch.random_walk().quantiles.device.type == "meta"
