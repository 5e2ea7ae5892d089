"""The verdict on a candidate, from its answers, the champion's answers, and what came.

Owns the rules. A candidate passes when its loss is lower than the champion's beyond doubt and lower than the
baseline's, and no floor is broken. A candidate is rejected when its loss is higher than one of the two beyond doubt, or
when a floor is broken. Else the verdict is undecided, and an undecided candidate is not promoted. Each earlier look at
the same rows narrows the allowed error: with n looks before, the intervals are those of alpha / (n + 1) (Bonferroni).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import numpy as np

from training.plane.gate import statistics
from training.plane.gate.statistics import Floats, Interval, Ints

ALPHA: Final = 0.05
FOLDS: Final = 4
FEWEST_ROWS: Final = 30
FEWEST_ORIGINS: Final = 20
F1_LOSS: Final = 0.02
"""Macro F1 that a candidate may lose."""
CLASS_F1_LOSS: Final = 0.05
"""F1 of one class that a candidate may lose, where the class has CLASS_ROWS rows."""
CLASS_ROWS: Final = 10
ECE_GAIN: Final = 0.03
"""Calibration error that a candidate may add."""
COVERED: Final = (0.1, 0.9)
"""Levels that each forecast has: the interval between both must hold its share."""
COVERAGE_SLACK: Final = 0.03
COVERAGE_DEVIATIONS: Final = 3.0


class Verdict(StrEnum):
    """Only `passed` may be promoted."""

    PASSED = "passed"
    REJECTED = "rejected"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Report:
    """The verdict with its reasons, and the figures as JSON."""

    verdict: Verdict
    reasons: list[str]
    figures: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {"verdict": str(self.verdict), "reasons": self.reasons, **self.figures}


@dataclass(frozen=True, slots=True)
class Coverage:
    """The share of outcomes that an interval should hold, the share that the interval held, and the allowed slack."""

    nominal: float
    share: float
    slack: float

    def broken(self) -> str:
        return (
            f"the {self.nominal:.0%} interval held {self.share:.1%}, "
            f"allowed is {self.nominal:.0%} give or take {self.slack:.1%}"
        )

    def as_json(self) -> dict[str, float]:
        return {"nominal": self.nominal, "candidate": self.share, "slack": self.slack}


def undecided(*reasons: str) -> Report:
    """Nothing was measured."""
    return Report(Verdict.UNDECIDED, list(reasons))


def of_texts(
    candidate: Floats, champion: Floats, baseline: Floats, labels: Ints, *, looks: int, names: Sequence[str]
) -> Report:
    """Judge probabilities [n, k] on labels [n], in the order of time; `looks` counts earlier looks at these rows."""
    if len(labels) < FEWEST_ROWS:
        return undecided(f"{len(labels)} rows were held back, at least {FEWEST_ROWS} are needed")
    alpha = ALPHA / (looks + 1)
    losses = {name: statistics.nll(answers, labels) for name, answers in _named(candidate, champion, baseline).items()}
    against = {name: losses["candidate"] - losses[name] for name in ("champion", "baseline")}
    intervals = {name: statistics.paired(difference, alpha) for name, difference in against.items()}
    floors = _text_floors(candidate, champion, labels, names)
    figures = {
        "rows": len(labels),
        "looks_before": looks,
        "alpha": alpha,
        "nll": {name: float(loss.mean()) for name, loss in losses.items()},
        "macro_f1": {
            name: float(statistics.f1(answers, labels).mean())
            for name, answers in _named(candidate, champion, baseline).items()
        },
        "ece": {
            name: statistics.ece(answers, labels) for name, answers in _named(candidate, champion, baseline).items()
        },
        "class_f1": {
            name: dict(zip(names, statistics.f1(answers, labels).tolist(), strict=True))
            for name, answers in (("candidate", candidate), ("champion", champion))
        },
        "nll_difference": {name: interval.as_json() for name, interval in intervals.items()},
        "folds": _folds(against["champion"]),
    }
    return _judged("NLL", intervals, floors, figures)


def of_bands(
    candidate: Floats, champion: Floats, baseline: Floats, came: Floats, bases: Floats, levels: Sequence[float],
    times: Ints, *, looks: int,
) -> Report:  # fmt: skip
    """Judge quantiles [n, levels] of outcomes `came` [n]. `levels` increase, and have both levels of COVERED.

    `bases` [n] are the last closes before the origins: losses are divided by these, so that symbols of different prices
    weigh the same. `times` [n] orders the origins; origins of several symbols at one time are one observation, because
    symbols move together.
    """
    moments = np.unique(times)
    if len(moments) < FEWEST_ORIGINS:
        return undecided(f"{len(moments)} times were held back, at least {FEWEST_ORIGINS} are needed")
    alpha, at = ALPHA / (looks + 1), np.array(levels)
    losses = {
        name: _by_time(statistics.pinball(bands / bases[:, None], came / bases, at), times)
        for name, bands in _named(candidate, champion, baseline).items()
    }
    against = {name: losses["candidate"] - losses[name] for name in ("champion", "baseline")}
    intervals = {name: statistics.blocked(difference, alpha) for name, difference in against.items()}
    judged = {COVERED, (levels[0], levels[-1])}
    coverages = [_coverage(candidate, came, levels, interval, times) for interval in sorted(judged)]
    figures = {
        "origins": len(came),
        "times": len(moments),
        "looks_before": looks,
        "alpha": alpha,
        "weighted_quantile_loss": {name: float(loss.mean()) for name, loss in losses.items()},
        "loss_ratio": {name: float(losses["candidate"].mean() / losses[name].mean()) for name in against},
        "coverage": [coverage.as_json() for coverage in coverages],
        "loss_difference": {name: interval.as_json() for name, interval in intervals.items()},
        "folds": _folds(against["champion"]),
    }
    floors = [coverage.broken() for coverage in coverages if abs(coverage.share - coverage.nominal) > coverage.slack]
    return _judged("quantile loss", intervals, floors, figures)


def _named(candidate: Floats, champion: Floats, baseline: Floats) -> dict[str, Floats]:
    return {"candidate": candidate, "champion": champion, "baseline": baseline}


def _coverage(
    bands: Floats, came: Floats, levels: Sequence[float], interval: tuple[float, float], times: Ints
) -> Coverage:
    low, high = (bands[:, list(levels).index(level)] for level in interval)
    inside = _by_time(((came >= low) & (came <= high)).astype(np.float64), times)
    nominal = interval[1] - interval[0]
    slack = COVERAGE_SLACK + COVERAGE_DEVIATIONS * float(np.sqrt(nominal * (1 - nominal) / len(inside)))
    return Coverage(nominal, float(inside.mean()), slack)


def _text_floors(candidate: Floats, champion: Floats, labels: Ints, names: Sequence[str]) -> list[str]:
    """The floors that are broken: a better mean must not hide a class or a confidence that got worse."""
    broken = []
    mine, theirs = statistics.f1(candidate, labels), statistics.f1(champion, labels)
    if mine.mean() < theirs.mean() - F1_LOSS:
        broken.append(f"macro F1 {mine.mean():.3f}, the champion's is {theirs.mean():.3f}")
    for place, name in enumerate(names):
        if (labels == place).sum() >= CLASS_ROWS and mine[place] < theirs[place] - CLASS_F1_LOSS:
            broken.append(f"F1 of {name} {mine[place]:.3f}, the champion's is {theirs[place]:.3f}")
    errors = statistics.ece(candidate, labels), statistics.ece(champion, labels)
    if errors[0] > errors[1] + ECE_GAIN:
        broken.append(f"calibration error {errors[0]:.3f}, the champion's is {errors[1]:.3f}")
    return broken


def _judged(loss: str, intervals: Mapping[str, Interval], floors: Sequence[str], figures: dict[str, Any]) -> Report:
    worse = [f"{loss}: worse than the {name}" for name, found in intervals.items() if found.low > 0]
    if worse or floors:
        return Report(Verdict.REJECTED, [*worse, *floors], figures)
    unsure = []
    if intervals["champion"].high >= 0:
        unsure.append(f"{loss}: not better than the champion beyond doubt")
    if intervals["baseline"].mean >= 0:
        unsure.append(f"{loss}: not better than the baseline")
    losing = sum(fold > 0 for fold in figures["folds"])
    if losing > FOLDS // 2:
        unsure.append(f"{loss}: higher than the champion's in {losing} of {FOLDS} folds")
    if unsure:
        return Report(Verdict.UNDECIDED, unsure, figures)
    return Report(Verdict.PASSED, [f"{loss}: lower than the champion's and the baseline's, no floor broken"], figures)


def _by_time(values: Floats, times: Ints) -> Floats:
    """Means of the values of each time, in order."""
    _, places = np.unique(times, return_inverse=True)
    return np.bincount(places, weights=values) / np.bincount(places)


def _folds(differences: Floats) -> list[float]:
    """The mean difference in each of so many consecutive folds: a walk forward."""
    return [float(fold.mean()) for fold in np.array_split(differences, FOLDS)]
