"""Warnings about data and coverage: due on bad data with the right evidence, and never on clean data."""

from math import isnan

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from benchmarks import evaluate_forecast
from models.forecast import Forecast, Series, answer_warnings, load
from models.forecast.series import Array
from models.warning import WarningCode
from tests import extras
from tests.models.forecast.test_outliers import prices


def codes(found: Forecast) -> list[str]:
    return [warning.code for warning in found.warnings]


def evidence(found: Forecast, code: WarningCode) -> dict[str, tuple[float, ...]]:
    (warning,) = [warning for warning in found.warnings if warning.code == code]
    return dict(warning.evidence)


def answer(values: Array, horizon: int = 5, name: str = "auto") -> Forecast:
    return load(name).run([Series(values, horizon, (0.1, 0.5, 0.9))])[0]


@pytest.mark.parametrize("context", [256, 1000])
@pytest.mark.parametrize("horizon", [1, 5, 24])
def test_closes_of_stocks_get_no_warning(horizon: int, context: int) -> None:
    model = load("auto")
    for name, values in evaluate_forecast.closes().items():
        ends = range(context, len(values), 37)
        items = [Series(np.ascontiguousarray(values[end - context : end]), horizon, (0.5,)) for end in ends]
        assert [(name, found.warnings) for found in model.run(items) if found.warnings] == []


def test_volumes_get_no_warning_about_outliers_or_splits() -> None:
    model = load("vol_rw")
    for name in ("GOOG volume", "EURUSD volume"):
        values = evaluate_forecast.others()[name]
        items = [
            Series(np.ascontiguousarray(values[end - 256 : end]), 5, (0.5,)) for end in range(256, len(values), 37)
        ]
        found = {code for one in model.run(items) for code in codes(one)}
        assert not found & {WarningCode.OUTLIERS_TREATED, WarningCode.SUSPECTED_SPLIT, WarningCode.STALE_TAIL}


def test_treated_outliers_are_counted_and_placed() -> None:
    values = prices()
    values[[20, 200]] *= [100, 0.01]
    found = answer(values)
    assert codes(found) == [WarningCode.OUTLIERS_TREATED]
    assert evidence(found, WarningCode.OUTLIERS_TREATED) == {"count": (2,), "positions": (20, 200)}
    assert "positions 20, 200" in found.warnings[0].message


def test_of_many_outliers_the_newest_are_placed() -> None:
    values = prices(2000)
    places = np.arange(50, 2000, 97)
    values[places] *= 100
    shown = evidence(answer(values), WarningCode.OUTLIERS_TREATED)
    assert shown["count"] == (len(places),)
    assert shown["positions"] == tuple(places[-16:].tolist())


@pytest.mark.parametrize(("factor", "words"), [(0.25, "4:1 split"), (10.0, "1:10 reverse split")])
def test_a_split_is_named_with_its_place_and_what_to_do(factor: float, words: str) -> None:
    values = prices()
    values[-20:] *= factor * values[-21] / values[-20]
    found = answer(values)
    assert evidence(found, WarningCode.SUSPECTED_SPLIT) == {"ratio": (pytest.approx(1 / factor),), "bars_ago": (19,)}
    assert words in found.warnings[0].message
    assert "adjusted" in found.warnings[0].message


@pytest.mark.parametrize(("bars", "due"), [(9, False), (10, True), (200, True), (250, True)])
def test_a_stale_tail_is_reported_from_ten_bars_on(bars: int, due: bool) -> None:
    values = prices()
    values[-bars:] = values[-bars]
    found = answer(values)
    assert (WarningCode.STALE_TAIL in codes(found)) is due
    if due:
        assert evidence(found, WarningCode.STALE_TAIL) == {"bars": (bars,)}


@pytest.mark.parametrize(("length", "horizon", "origins"), [(30, 5, 0), (64, 24, 1), (64, 10, 3), (70, 10, 4)])
def test_few_backtests_are_reported(length: int, horizon: int, origins: int) -> None:
    found = answer(prices(length), horizon)
    assert found.coverage_count == origins
    assert isnan(found.coverage) is (origins == 0)
    assert (WarningCode.FEW_BACKTESTS in codes(found)) is (origins < 4)
    if origins < 4:
        assert evidence(found, WarningCode.FEW_BACKTESTS) == {"origins": (origins,), "least": (4,)}


@pytest.mark.parametrize("origins", [4, 9, 45, 250])
def test_chance_is_that_of_the_binomial_distribution(origins: int) -> None:
    for hits in range(origins + 1):
        tails = [binomtest(hits, origins, 0.8, side).pvalue for side in ("less", "greater")]
        assert answer_warnings.chance(hits, origins) == pytest.approx(min(1, 2 * min(tails)))


def test_a_coverage_far_from_its_promise_is_reported_with_the_side() -> None:
    narrow, wide = answer_warnings.of_coverage(20 / 45, 45), answer_warnings.of_coverage(1.0, 60)
    for (warning,), word in ((narrow, "narrow"), (wide, "wide")):
        assert warning.code == WarningCode.COVERAGE_OFF_NOMINAL
        assert word in warning.message
    assert dict(narrow[0].evidence) == {"nominal": (0.8,), "measured": (20 / 45,), "origins": (45,)}
    assert answer_warnings.of_coverage(35 / 45, 45) == ()
    assert answer_warnings.of_coverage(1.0, 9) == ()


def test_chance_alone_warns_of_one_clean_series_in_a_thousand_and_fifteen_backtests_tell_of_narrow_bands() -> None:
    def warned(origins: int, coverage: float) -> float:
        hits = [hit for hit in range(origins + 1) if answer_warnings.of_coverage(hit / origins, origins)]
        return float(binom.pmf(hits, origins, coverage).sum())

    assert max(warned(origins, 0.8) for origins in (*range(4, 61), 100, 250)) < 0.001
    assert warned(15, 0.4) > 0.4
    assert answer_warnings.of_coverage(8 / 15, 15) == ()  # one clean series in 28 is as far off


def test_coverage_far_from_its_promise_is_reported_on_a_volatility_that_jumps() -> None:
    """Quiet bars alternate with large moves."""
    rng = np.random.default_rng(0)
    steps = np.where(np.arange(400) % 2, 0.03, 1e-4) * rng.choice([-1, 1], 400)
    assert WarningCode.COVERAGE_OFF_NOMINAL in codes(answer(100 * np.exp(np.cumsum(steps)), 1, "vol_rw"))


@extras.FRACAST
@pytest.mark.parametrize("name", ["fracast", "auto_fracast"])
def test_networks_give_the_same_warnings(name: str) -> None:
    values = prices()
    values[100] *= 100
    values[-20:] *= 0.25 * values[-21] / values[-20]
    found = answer(values, name=name)
    assert codes(found)[:2] == [WarningCode.OUTLIERS_TREATED, WarningCode.SUSPECTED_SPLIT]
    seasonal = 50 + 10 * np.sin(np.arange(40) / 2) + np.random.default_rng(0).normal(size=40)
    assert codes(answer(seasonal, 20, name)) == [WarningCode.FEW_BACKTESTS]
