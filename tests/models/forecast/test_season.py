"""The cycle of the volatility: factors, bands by phase, coverage by phase."""

import numpy as np
import pytest

from models.forecast import Series, load
from models.forecast.clock import clock_of
from models.forecast.path import make_path
from models.forecast.season import make_season
from models.forecast.series import Array

LEVELS = (0.1, 0.5, 0.9)
PERIOD = 6
SIZES = np.array([0.2, 0.2, 0.5, 1.0, 2.0, 3.0])


def cyclic(length: int = 600, seed: int = 0) -> Array:
    """Prices whose steps have the sizes of SIZES in turn; the step to the newest value has the last size."""
    sizes = SIZES[(np.arange(length) - length) % PERIOD]
    return 100 * np.exp(np.cumsum(0.01 * sizes * np.random.default_rng(seed).normal(size=length)))


def width(values: Array, period: int, horizon: int = PERIOD) -> Array:
    (found,) = load("auto").run([Series(values, horizon, LEVELS, period=period)])
    return np.log(found.quantiles[:, 2] / found.quantiles[:, 0])


def factors(sizes: Array, cycles: int, seed: int) -> tuple[Array, Array]:
    """The factors found for steps of ``sizes`` [period] in turn, and the plain means of the phases, both [period]."""
    rng = np.random.default_rng(seed)
    moves = np.tile(sizes, cycles) * rng.normal(size=len(sizes) * cycles)
    # The newest step has phase 0: steps of phase 1 come first.
    moves = np.roll(moves.reshape(cycles, -1), -1, axis=1)
    values = np.exp(0.01 * np.concatenate([[0.0], moves.ravel()]).cumsum())
    clock = clock_of(Series(values, 1, LEVELS, period=len(sizes)), 1)
    found = make_season(make_path(values[None], np.array([float(moves.size)]), padded=False), [clock], 1, "cpu")
    plain = np.abs(moves).mean(0)
    return np.roll(found.factor[0, -len(sizes) :], 1), np.roll(plain / plain.mean(), 1)


def test_few_steps_of_a_smooth_cycle_lean_on_their_neighbours() -> None:
    truth = 1 + 0.6 * np.cos(2 * np.pi * np.arange(24) / 24)
    errors = []
    for seed in range(20):
        found, plain = factors(truth, 10, seed)
        errors.append([np.abs(estimate / truth - 1).mean() for estimate in (found, plain)])
    ours, naive = np.mean(errors, 0)
    assert ours < 0.7 * naive


def test_a_sharp_phase_keeps_its_size_among_calm_neighbours() -> None:
    sizes = np.ones(24)
    sizes[5] = 5.0
    found = np.mean([factors(sizes, 20, seed)[0] for seed in range(10)], 0)
    assert found[5] > 4 * found[15]
    assert found[5] == found.max()
    assert (np.delete(found, 5) < 1.3 * found[15]).all()


def test_one_large_step_counts_as_a_few_steps_of_its_phase() -> None:
    sizes = np.ones(24)
    sizes[4:9] = 0.2
    moves = np.tile(sizes, 20) * np.where(np.arange(480) % 2, 1.0, -1.0)
    clock = clock_of(Series(np.ones(481), 1, LEVELS, period=24), 1)
    found = []
    for largest in (0.2, 20.0):
        moves[246] = largest
        values = np.exp(0.01 * np.concatenate([[0.0], moves]).cumsum())
        season = make_season(make_path(values[None], np.array([480.0]), padded=False), [clock], 1, "cpu")
        found.append(season.factor[0, -24:][6] / season.factor[0, -24:][16])
    assert found[0] == pytest.approx(0.2, rel=0.2)
    assert found[1] < 1.7 * found[0]


def test_bands_grow_by_the_phases_ahead() -> None:
    """The first steps ahead are the calm ones."""
    squares = np.diff(width(cyclic(), PERIOD) ** 2, prepend=0)
    assert (np.diff(squares[1:]) > 0).all()
    assert squares[0] < 0.1 * squares[-1]
    flat = np.diff(width(cyclic(), 0) ** 2, prepend=0)
    assert flat.max() < 2 * flat.min()


def test_coverage_by_phase_is_near_eighty_percent_with_the_period_alone() -> None:
    values = cyclic(1000)
    (found,) = load("auto").run([Series(values, 1, LEVELS, period=PERIOD)])
    assert found.phases is not None
    assert found.phases.origins.sum() == 250
    assert (np.abs(found.phases.measured - 0.8) < 0.2).all()
    contexts = [np.ascontiguousarray(values[end - 400 : end]) for end in range(400, 1000)]
    after = values[400:]
    covered = {}
    for period in (0, PERIOD):
        answers = load("auto").run([Series(context, 1, LEVELS, period=period) for context in contexts])
        inside = [
            one.quantiles[0, 0] <= value <= one.quantiles[0, 2] for one, value in zip(answers, after, strict=True)
        ]
        covered[period] = np.reshape(inside, (-1, PERIOD)).mean(0)
    assert np.ptp(covered[PERIOD]) < 0.25 < np.ptp(covered[0])


def test_rows_with_and_without_a_period_leave_each_other_alone() -> None:
    items = [
        Series(cyclic(300), 9, LEVELS, period=PERIOD),
        Series(cyclic(120, 1), 4, (0.5,)),
        Series(50 + np.sin(np.arange(200)) + np.random.default_rng(0).normal(size=200), 9, LEVELS, period=7),
        Series(np.full(64, 5.0), 3, LEVELS, period=1440),
    ]
    model = load("auto")
    for item, together in zip(items, model.run(items), strict=True):
        (alone,) = model.run([item])
        np.testing.assert_allclose(together.quantiles, alone.quantiles, rtol=1e-9)
        assert together.coverage == pytest.approx(alone.coverage)
        assert (together.phases is None) is (item.period == 0)
        if together.phases is not None and alone.phases is not None:
            np.testing.assert_array_equal(together.phases.measured, alone.phases.measured)
            assert len(together.phases.origins) == item.period


def test_a_period_keeps_the_scale() -> None:
    plain, scaled = load("auto").run([Series(cyclic() * factor, 5, LEVELS, period=PERIOD) for factor in (1.0, 1e6)])
    np.testing.assert_allclose(scaled.quantiles / 1e6, plain.quantiles, rtol=1e-7)


@pytest.mark.parametrize("name", ["auto_v1", "vol_rw", "ridge_ar"])
def test_other_models_take_no_period(name: str) -> None:
    assert not load(name).takes
    assert load("auto").takes == ("period", "times")
