"""`auto` with a pretrained network mixed into the autoregression (`auto_fracast`).

Owns the mixture over the horizon. Rows with a closed gate get the random walk and never reach the network.
"""

from collections.abc import Mapping, Sequence

import torch

from models.forecast.arrays import back, namespace
from models.forecast.backtests import BACKTESTS, with_coverage
from models.forecast.batch import Batch, Outlook
from models.forecast.embedded import Embedded, Judged
from models.forecast.pretrained import Foundation, outlook
from models.forecast.series import Forecast, Series


class Blended(Embedded):
    """`auto` with ``foundation`` mixed into the autoregression, with a share that grows over the horizon."""

    fresh_answers = True

    def __init__(self, name: str, foundation: Foundation, backtests: int = BACKTESTS) -> None:
        super().__init__(name, str(foundation.device))
        self.version = f"{Embedded.version}+{foundation.version}"
        self._foundation = foundation
        self._backtests = backtests

    def run(self, items: Sequence[Series]) -> list[Forecast]:
        """Forecasts in the items' order. Rows with an open gate are equal in any batch to the network's precision.

        The coverage of such rows comes from runs of the whole mixture at past origins; other rows have the coverage of
        the random walk.
        """
        answers = super().run(items)
        opened = [row for row, answer in enumerate(answers) if answer.gate > 0]
        mixed = [items[row] for row in opened]
        covered = with_coverage(mixed, [answers[row] for row in opened], super().run, self._backtests)
        for row, answer in zip(opened, covered, strict=True):
            answers[row] = answer
        return answers

    @torch.inference_mode()
    def _structured(self, batch: Batch, rows: Sequence[int], widths: Mapping[int, float]) -> Outlook:
        found = outlook(self._foundation, [[batch.items[row]] for row in rows], batch.steps, batch.columns)
        network = Outlook(back(found.point, batch.device), back(found.quantiles, batch.device))
        xp = namespace(network.point)
        ahead = xp.arange(batch.steps, dtype=xp.float64, device=batch.device)
        share = 1 - (0.7 * xp.exp(-ahead / 8) + 0.3)
        return super()._structured(batch, rows, widths).mixed(batch.vector(range(len(rows))), share[None], network)

    def _judged(self, batch: Batch, rows: Sequence[int], gates: list[float]) -> Judged:
        return Judged(self._walk_coverage(batch), {}, ())
