"""Forecast origins of a walk-forward: as many bars as lie before an origin, oldest origin first.

Owns the lattice and the share that is held back for the gate. Origins lie one horizon apart, so that targets do not
overlap. The plane computes the same origins from the dataset: no machine chooses the origins of the gate.
"""

import numpy as np
import numpy.typing as npt

from training.recipes.recipe import AnyRecipe, Calibration, Chronos2

Ends = npt.NDArray[np.int64]


def lattice(bars: int, horizon: int, fewest: int) -> Ends:
    """Every origin with at least `fewest` bars before and `horizon` bars after the origin."""
    return np.arange(bars - horizon, fewest - 1, -horizon)[::-1]


def newest(ends: Ends, share: float) -> Ends:
    """The newest share of the origins, at least one; none for a share of 0."""
    return ends[len(ends) - max(1, int(share * len(ends) + 1e-9)) :] if share and len(ends) else ends[:0]


def held_back(recipe: AnyRecipe, bars: int) -> Ends:
    """The origins of one symbol that judge a forecaster. Raises TypeError for a recipe of no forecaster."""
    if isinstance(recipe, Calibration):
        enough = bars >= recipe.fewest + recipe.horizon
        return newest(lattice(bars if enough else 0, recipe.horizon, recipe.fewest), 1 / recipe.folds)
    if isinstance(recipe, Chronos2):
        return newest(lattice(bars, recipe.horizon, recipe.horizon), recipe.split.gate)
    raise TypeError(recipe.kind)
