"""Better beyond doubt passes, worse is rejected, doubt is undecided, and a better mean hides no worse part."""

import numpy as np
import pytest
from scipy import stats

from training.plane.gate.baselines import label_shares, random_walk
from training.plane.gate.verdict import Verdict, of_bands, of_texts

NAMES = ("negative", "neutral", "positive")
LEVELS = (0.1, 0.5, 0.9)


def answers(labels: np.ndarray, sure: float, right: float = 1.0, seed: int = 0) -> np.ndarray:
    """Probabilities that give `sure` to one label: to the true one in a share `right` of the rows."""
    draws = np.random.default_rng(seed)
    chosen = np.where(draws.random(len(labels)) < right, labels, (labels + 1) % 3)
    found = np.full((len(labels), 3), (1 - sure) / 2)
    found[np.arange(len(labels)), chosen] = sure
    return found


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 3, 200)


def texts(candidate: np.ndarray, champion: np.ndarray, labels: np.ndarray, looks: int = 0):
    return of_texts(candidate, champion, label_shares(labels, 3, len(labels)), labels, looks=looks, names=NAMES)


def test_a_better_classifier_passes(labels: np.ndarray) -> None:
    report = texts(answers(labels, 0.85, 0.9, 1), answers(labels, 0.7, 0.75, 2), labels)
    assert report.verdict is Verdict.PASSED, report.reasons
    assert report.figures["nll_difference"]["champion"]["high"] < 0
    assert len(report.figures["folds"]) == 4


def test_a_worse_classifier_is_rejected(labels: np.ndarray) -> None:
    report = texts(answers(labels, 0.7, 0.7, 2), answers(labels, 0.85, 0.9, 1), labels)
    assert report.verdict is Verdict.REJECTED
    assert "NLL: worse than the champion" in report.reasons


def test_the_same_classifier_is_undecided(labels: np.ndarray) -> None:
    same = answers(labels, 0.8, 0.85, 1)
    report = texts(same, same, labels)
    assert report.verdict is Verdict.UNDECIDED
    assert report.reasons == ["NLL: not better than the champion beyond doubt"]


def test_a_classifier_no_better_than_label_shares_does_not_pass(labels: np.ndarray) -> None:
    report = texts(label_shares(labels, 3, len(labels)), answers(labels, 0.9, 0.3, 1), labels)
    assert report.verdict is not Verdict.PASSED
    assert report.figures["nll_difference"]["baseline"] == {"mean": 0.0, "low": 0.0, "high": 0.0}


def test_a_better_mean_hides_no_class_that_got_worse(labels: np.ndarray) -> None:
    candidate, champion = answers(labels, 0.98), answers(labels, 0.55)
    rare = np.flatnonzero(labels == 1)[:20]
    candidate[rare] = np.roll(answers(labels[rare], 0.5), 1, axis=1)
    report = texts(candidate, champion, labels)
    assert report.verdict is Verdict.REJECTED
    assert any("F1 of neutral" in reason for reason in report.reasons)


def test_a_classifier_that_is_surer_than_right_is_rejected(labels: np.ndarray) -> None:
    report = texts(answers(labels, 0.95, 0.8, 1), answers(labels, 0.6, 0.6, 2), labels)
    assert any(reason.startswith("calibration error") for reason in report.reasons), report.as_json()
    assert report.verdict is Verdict.REJECTED


def test_each_look_narrows_the_allowed_error(labels: np.ndarray) -> None:
    candidate, champion = answers(labels, 0.8, 0.87, 1), answers(labels, 0.8, 0.82, 1)
    verdicts = [texts(candidate, champion, labels, looks) for looks in (0, 500)]
    assert [one.figures["alpha"] for one in verdicts] == [0.05, 0.05 / 501]
    spans = [one.figures["nll_difference"]["champion"] for one in verdicts]
    assert spans[1]["high"] > spans[0]["high"]


def test_few_rows_decide_nothing() -> None:
    labels = np.arange(29) % 3
    assert texts(answers(labels, 0.9), answers(labels, 0.4), labels).verdict is Verdict.UNDECIDED


def bands(scale: float, n: int = 200, base: float = 100.0) -> np.ndarray:
    return base * np.exp(scale * 0.01 * np.tile(stats.norm.ppf(LEVELS), (n, 1)))


def forecasts(candidate: float, champion: float, *, spread: float = 1.0, n: int = 200, symbols: int = 1):
    came = 100 * np.exp(spread * 0.01 * np.random.default_rng(6).standard_normal(n))
    times = np.arange(n) // symbols
    return of_bands(
        bands(candidate, n), bands(champion, n), bands(4.0, n), came, np.full(n, 100.0), LEVELS, times, looks=0
    )


def test_a_forecaster_with_the_right_spread_passes() -> None:
    report = forecasts(1.0, 3.0)
    assert report.verdict is Verdict.PASSED, report.as_json()
    assert report.figures["loss_ratio"]["champion"] < 1
    [coverage] = report.figures["coverage"]
    assert coverage["candidate"] == pytest.approx(0.8, abs=0.08)


def test_a_lower_loss_does_not_excuse_an_interval_that_does_not_hold() -> None:
    report = forecasts(0.5, 6.0)
    assert report.verdict is Verdict.REJECTED
    assert "interval held" in report.reasons[0]


def test_a_wide_outer_interval_does_not_excuse_an_inner_one_that_does_not_hold() -> None:
    levels, n = (1e-6, 0.1, 0.9, 1 - 1e-6), 200
    came = 100 * np.exp(0.01 * np.random.default_rng(6).standard_normal(n))
    inner = bands(0.5, n)[:, [0, 2]]
    candidate = np.column_stack([np.full(n, 90.0), inner, np.full(n, 110.0)])
    wide = np.column_stack([np.full(n, 50.0), bands(6.0, n)[:, [0, 2]], np.full(n, 200.0)])
    report = of_bands(candidate, wide, wide, came, np.full(n, 100.0), levels, np.arange(n), looks=0)
    assert report.verdict is Verdict.REJECTED
    assert [reason[:16] for reason in report.reasons] == ["the 80% interval"]


def test_a_forecaster_that_is_nearly_the_same_is_undecided() -> None:
    assert forecasts(1.0, 1.001).verdict is Verdict.UNDECIDED


def test_symbols_of_one_time_are_one_observation() -> None:
    assert forecasts(1.0, 3.0, n=60, symbols=4).verdict is Verdict.UNDECIDED
    assert forecasts(1.0, 3.0, n=60).figures["times"] == 60


def test_the_baselines_know_only_the_past() -> None:
    closes = {"A": np.exp(np.cumsum(np.random.default_rng(7).normal(0, 0.01, 400)))}
    before = random_walk(closes, [("A", 300)], 5, np.array(LEVELS))
    closes["A"][300:] *= 7
    np.testing.assert_array_equal(random_walk(closes, [("A", 300)], 5, np.array(LEVELS)), before)
    np.testing.assert_allclose(label_shares(np.array([0, 0, 1]), 3, 2), [[3 / 6, 2 / 6, 1 / 6]] * 2)
