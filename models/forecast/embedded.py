"""The weight-free forecasters as models: `vol_rw`, `ridge_ar` and `auto`, which lets the gate choose between them.

Owns the run of one batch, from items to answers. The formulas are in the rooms it calls: batch, volatility, gate and
autoregression.
"""

from collections.abc import Hashable, Sequence

import torch

from models.forecast import gate
from models.forecast.batch import Batch, mix
from models.forecast.path import Path, width_class
from models.forecast.selftest import check
from models.forecast.series import Forecast, Series

# The last step's quantiles of selftest.seasonal().
_EXPECTED = {
    "vol_rw": (43.44987821395587, 55.9730536508315, 72.10567356648114),
    "ridge_ar": (50.42283945153425, 55.058932539994814, 60.12128800000492),
    "auto": (50.42283945153425, 55.058932539994814, 60.12128800000492),
}
_HORIZON_CLASSES = (8, 32, 128, 365)


class Embedded:
    """A forecaster without weights. ``name`` is `vol_rw` (gate held shut), `ridge_ar` (held open) or `auto`."""

    version = "1"

    def __init__(self, name: str, device: str = "cpu") -> None:
        self.name = name
        self._device = torch.device(device)

    def bucket(self, item: Series) -> Hashable:
        return bucket(item)

    def cost(self, item: Series) -> int:
        return cost(item)

    def check(self) -> None:
        check(self, _EXPECTED[self.name])

    @torch.inference_mode()
    def run(self, items: Sequence[Series]) -> list[Forecast]:
        """Forecasts in the items' order; each is the same alone and in any batch, to 1e-9 of its scale."""
        batch = Batch(items, self._device)
        weight = self._gate(batch.path)
        outlook = batch.random_walk()
        covered, counts = batch.random_walk_coverage(), batch.origins
        if self.name != "vol_rw":
            rows = weight.nonzero().squeeze(1)
            if len(rows):
                outlook = mix(outlook, rows, weight[rows], batch.autoregression(rows))
        return batch.answers(outlook, weight, covered, counts)

    def _gate(self, path: Path) -> torch.Tensor:
        if self.name == "auto":
            return gate.weight(path)
        return torch.full_like(path.count, float(self.name == "ridge_ar"))


def bucket(item: Series) -> Hashable:
    """Classes of context and horizon, so that padding at most doubles a row and short horizons wait for no long one."""
    horizon = next(longest for longest in _HORIZON_CLASSES if item.horizon <= longest)
    return (max(len(item.values) - 2, 31).bit_length(), horizon)


def cost(item: Series) -> int:
    """The item's padded context plus what it writes, in points."""
    return width_class(len(item.values)) + item.horizon * len(item.levels)
