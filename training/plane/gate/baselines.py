"""Naive models, below which no candidate passes: the share of each label, and a random walk with past returns.

Owns the two baselines. Both know nothing of later rows or bars.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from training.plane.gate.statistics import Floats, Ints

WINDOW = 250
"""Bars for the returns behind the quantiles."""


def label_shares(labels: Ints, classes: int, count: int) -> Floats:
    """The shares of the training labels, with one row more of each class, for `count` rows [count, k]."""
    counts = np.bincount(labels, minlength=classes) + 1.0
    return np.tile(counts / counts.sum(), (count, 1))


def random_walk(
    closes: Mapping[str, Floats], origins: Sequence[tuple[str, int]], horizon: int, levels: Floats
) -> Floats:
    """Quantiles [origins, levels] of the close one horizon later: the last close, times quantiles of past returns."""
    found = np.empty((len(origins), len(levels)))
    for place, (symbol, end) in enumerate(origins):
        past = closes[symbol][max(0, end - WINDOW - horizon) : end]
        returns = np.log(past[horizon:] / past[:-horizon]) if len(past) > horizon else np.zeros(1)
        found[place] = past[-1] * np.exp(np.quantile(returns, levels))
    return found
