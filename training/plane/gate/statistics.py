"""Losses, calibration measures and bootstrap intervals.

Owns the formulas; verdict.py has the rules. Sources: NLL and macro F1 as in any textbook; ECE from Guo et al., 2017;
quantile loss from Koenker and Bassett, 1978, weighted as in the M5 and GluonTS; the moving-block bootstrap from
Künsch, 1989, with blocks of n^(1/3); the exact binomial test from Clopper and Pearson, 1934.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_SMALLEST = 1e-12
_DRAWS = 2000
_SEED = 20
_BINS = 15
_MOST_EXACT = 100_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with the bounds of its bootstrap interval."""

    mean: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        return {"mean": self.mean, "low": self.low, "high": self.high}


def nll(probabilities: Floats, labels: Ints) -> Floats:
    """Negative log-likelihood of each row [n] from probabilities [n, k]."""
    found: Floats = -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], _SMALLEST))
    return found


def ece(probabilities: Floats, labels: Ints) -> float:
    """Expected calibration error of the top label over 15 equal-width bins of confidence."""
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == labels
    places = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    return float(np.abs(np.bincount(places, weights=confidence - right, minlength=_BINS)).sum() / len(labels))


def f1(probabilities: Floats, labels: Ints) -> Floats:
    """F1 of each class [k]; 0 for a class that is neither in the labels nor in the answers."""
    classes = probabilities.shape[1]
    counts = np.bincount(labels * classes + probabilities.argmax(1), minlength=classes**2).reshape(classes, classes)
    either = counts.sum(0) + counts.sum(1)
    return np.asarray(2 * np.diag(counts) / np.maximum(either, 1), np.float64)


def pinball(bands: Floats, came: Floats, levels: Floats) -> Floats:
    """Quantile loss of each origin, twice the mean over the levels [n]; `bands` [n, levels], `came` [n].

    Twice the loss at level 0.5 is the absolute error.
    """
    over = came[:, None] - bands
    return np.asarray(2 * np.maximum(levels * over, (levels - 1) * over).mean(1))


def paired(differences: Floats, alpha: float) -> Interval:
    """The mean of independent differences, with its 1 - alpha interval by the bootstrap."""
    return _interval(differences, alpha, 1)


def blocked(differences: Floats, alpha: float) -> Interval:
    """The mean of differences in the order of time, by the moving-block bootstrap."""
    return _interval(differences, alpha, max(1, round(len(differences) ** (1 / 3))))


def _interval(differences: Floats, alpha: float, length: int) -> Interval:
    draws = np.random.default_rng(_SEED)
    n = len(differences)
    blocks = -(-n // length)
    sums = np.concatenate([[0.0], np.cumsum(differences)])
    whole = sums[length:] - sums[:-length]  # the sum of the block that begins at each place
    means = np.empty(_DRAWS)
    for draw in range(_DRAWS):
        means[draw] = whole[draws.integers(0, len(whole), blocks)].sum() / (blocks * length)
    low, high = np.quantile(means, [alpha / 2, 1 - alpha / 2])
    return Interval(float(differences.mean()), float(low), float(high))


def binomial_tails(hits: int, count: int, share: float) -> tuple[float, float]:
    """The probabilities of at most, and of at least, so many hits out of `count` with chance `share`.

    Above 100,000 by the normal distribution, in constant time and memory.
    """
    if not 0 < share < 1:
        raise ValueError("the share must be above 0 and below 1")
    if count > _MOST_EXACT:  # the watchdog counts the items of a day
        deviation = math.sqrt(2 * count * share * (1 - share))
        over = hits - count * share
        return 0.5 * math.erfc(-(over + 0.5) / deviation), 0.5 * math.erfc((over - 0.5) / deviation)
    places = np.arange(count + 1)
    choose = np.array([math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in places])
    chances = np.exp(choose + places * math.log(share) + (count - places) * math.log1p(-share))
    return min(1.0, float(chances[: hits + 1].sum())), min(1.0, float(chances[hits:].sum()))
