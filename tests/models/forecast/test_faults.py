"""Likely faults that stay in the series get a warning; news, crises and heavy tails get none."""

import numpy as np
import pytest

from models.forecast import Forecast, Series, load
from models.forecast.series import Array
from models.warning import WarningCode

LEVELS = (0.1, 0.5, 0.9)


def walk(length: int = 256, seed: int = 0, size: float = 0.012) -> Array:
    return 100 * np.exp(np.cumsum(size * np.random.default_rng(seed).standard_t(4, length) / np.sqrt(2)))


def answer(values: Array) -> Forecast:
    return load("auto").run([Series(np.ascontiguousarray(values), 5, LEVELS)])[0]


def faults(found: Forecast) -> list[dict[str, tuple[float, ...]]]:
    return [dict(one.evidence) for one in found.warnings if one.code == WarningCode.SUSPECTED_BAD_VALUE]


def codes(found: Forecast) -> set[str]:
    return {warning.code for warning in found.warnings}


@pytest.mark.parametrize("length", [30, 60, 256, 1000])
@pytest.mark.parametrize("factor", [100.0, 0.01, 1000.0, 12.0, 0.0, -1.0, 1 / 12])
def test_a_bad_newest_value_is_named_with_its_ratio(factor: float, length: int) -> None:
    values = walk(length)
    values[-1] *= factor
    found = answer(values)
    (evidence,) = faults(found)
    assert evidence["ratio"] == (pytest.approx(values[-1] / values[-2]),)
    assert (evidence["bars_ago"], evidence["value"]) == ((0,), (values[-1],))
    np.testing.assert_array_equal(found.point, np.full(5, values[-1]))


@pytest.mark.parametrize("fill", [0.0, -1.0, -99.0, -999.0, -9999.0])
def test_a_fill_value_is_named(fill: float) -> None:
    for newest in (1, 3):
        values = walk()
        values[-newest:] = fill
        found = answer(values)
        assert faults(found)[0]["value"] == (fill,)
        assert any("series of positive values" in warning.message for warning in found.warnings)


def test_the_sentence_says_how_many_times() -> None:
    values = np.r_[walk(), 100.0]
    for newest, words in ((10_000.0, "the newest value is 100 times the one before"), (1.0, "1/100 of the one before")):
        values[-2:] = 100.0, newest
        assert any(words in warning.message for warning in answer(values).warnings)


@pytest.mark.parametrize("bars", [2, 5, 60])
def test_another_unit_from_some_bar_on_is_named(bars: int) -> None:
    values = walk()
    values[-bars:] *= 100
    (evidence,) = faults(answer(values))
    assert evidence["bars_ago"] == (bars - 1,)


@pytest.mark.parametrize("ratio", [2, 3, 4, 5, 7, 10, 15, 20, 25])
@pytest.mark.parametrize("bars_ago", [0, 80])
@pytest.mark.parametrize("seed", range(3))
def test_a_split_on_a_day_of_ordinary_moves_is_no_other_fault(seed: int, bars_ago: int, ratio: int) -> None:
    rng = np.random.default_rng(seed)
    values = 100 * np.exp(np.cumsum(rng.uniform(-0.015, 0.015, 256)))
    values[255 - bars_ago :] /= ratio
    assert codes(answer(values)) - {WarningCode.COVERAGE_OFF_NOMINAL} == {WarningCode.SUSPECTED_SPLIT}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("move", [0.7, 0.78, 1.3, 1.4])
def test_an_earnings_gap_is_news(move: float, seed: int) -> None:
    for bars in (1, 4, 100):
        values = walk(seed=seed)
        values[-bars:] *= move
        assert codes(answer(values)) == set()


def test_a_jump_of_a_volatility_index_is_news() -> None:
    """February 2018: from 17.31 to 37.32 in a day."""
    values = 15 * np.exp(0.06 * np.random.default_rng(0).normal(size=256))
    values[-2:] = 17.31, 37.32
    assert not faults(answer(values))


def test_a_negative_oil_price_is_news() -> None:
    before = 50 * np.exp(np.cumsum(0.02 * np.random.default_rng(0).normal(size=242)))
    oil = np.r_[before, 25.6, 22.8, 20.1, 19.9, 18.3, -37.63, 10.0, 13.8]
    for end in range(len(oil) - 4, len(oil) + 1):
        assert not faults(answer(oil[:end]))


@pytest.mark.parametrize("size", [0.001, 0.012, 0.04, 0.08])
def test_heavy_tailed_prices_of_any_volatility_have_no_faults(size: float) -> None:
    found = load("auto").run([Series(walk(256, seed, size), 5, LEVELS) for seed in range(300)])
    assert sum(map(len, map(faults, found))) == 0
    assert sum(WarningCode.SUSPECTED_SPLIT in codes(one) for one in found) <= 2


@pytest.mark.parametrize("kind", ["volumes", "zero volumes", "counts", "returns", "line", "growth", "spread"])
def test_series_of_other_kinds_have_no_faults_or_splits(kind: str) -> None:
    rng, time = np.random.default_rng(0), np.arange(200.0)
    for _ in range(20):
        values = {
            "volumes": np.exp(12 + 0.5 * rng.standard_t(5, 200)),
            "zero volumes": np.where(rng.random(200) < 0.1, 0, np.exp(12 + 0.5 * rng.normal(size=200))),
            "counts": 1 + rng.poisson(0.5, 200).cumsum(),
            "returns": 0.01 * rng.standard_t(4, 200),
            "line": rng.uniform(0.05, 3) + time,
            "growth": 105 - 100 * np.exp(-time / 40) + 0.1 * rng.normal(size=200),
            "spread": 5 + rng.normal(size=200).cumsum(),
        }[kind]
        found = codes(answer(values.astype(np.float64)))
        assert not found & {WarningCode.SUSPECTED_BAD_VALUE, WarningCode.SUSPECTED_SPLIT}
