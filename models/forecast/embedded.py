"""The weight-free forecasters as models: `vol_rw`, `ridge_ar`, `auto` (a mixture by the gate) and `auto_v1`.

Owns the run of one batch, from items to answers, and the choice of the formulas by name. The formulas are in
sigma_table.py, memory.py, volatility.py, gate.py, structure.py, autoregression.py and coverage.py.
"""

from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from models.forecast import autoregression, coverage, gate, halts
from models.forecast.answer_warnings import Warnings, examine, resting
from models.forecast.arrays import AnyArray, Device, settings
from models.forecast.batch import Batch, Outlook
from models.forecast.coverage import Coverage
from models.forecast.screening import suspects
from models.forecast.selftest import check
from models.forecast.series import Forecast, Series
from models.forecast.structure import AUTOREGRESSION, MIXED
from models.forecast.walk import EWMA, POOLED
from models.model import require

# The last step's quantiles of selftest.seasonal(), and how far off another device or library may be.
_EXPECTED = {
    "vol_rw": ((43.44987821395587, 55.9730536508315, 72.10567356648114), 1e-6),
    "ridge_ar": ((50.634481748254444, 55.058932539994814, 59.86999269619674), 1e-6),
    "auto": ((50.66458347938696, 56.20209295839116, 62.34483806994603), 1e-6),
    "auto_v1": ((50.634481748254444, 55.058932539994814, 59.86999269619674), 1e-6),
    "auto_fracast": ((51.93412406951405, 55.9240207212156, 60.854809757589905), 1e-4),
}
_HORIZON_CLASSES = (8, 32, 128, 365)


class Judged(NamedTuple):
    """What backtests say of a batch. By row of a judged model: ``widths``, the factor of its deviations.

    ``plain``: the rows whose structured model works on plain values.
    """

    coverage: Coverage
    widths: Mapping[int, float]
    plain: Sequence[int]


class Embedded:
    """A forecaster without weights.

    ``name`` is `vol_rw` (gate held shut), `ridge_ar` (held open), `auto`, or `auto_v1`: version 1 of `auto`, with the
    walk of `vol_rw` and the autoregression of `ridge_ar`.
    """

    version = "1.1"
    fresh_answers = True
    walk = EWMA
    structure = AUTOREGRESSION
    gate = staticmethod(gate.weight)
    takes: tuple[str, ...] = ()
    """Optional fields of a request that the model takes."""

    def __init__(self, name: str, device: str = "cpu", *, tensors: bool = False) -> None:
        """On the CPU numpy computes; with ``tensors`` true torch does, by the same lines as on CUDA."""
        self.name = self._kind = name
        if name == "auto":
            self.version, self.walk, self.structure, self.gate = "2.3", POOLED, MIXED, gate.weight_2
            self.takes = ("period", "times")
        self._device: Device = _torch_device(device) if tensors or device != "cpu" else device

    def bucket(self, item: Series) -> Hashable:
        """A cycle takes up to ten times the time of the rest, which would teach the batcher a wrong pace for others."""
        found = bucket(item)
        return (found, "cycle") if item.period or item.times is not None else found

    def units(self, item: Series) -> int:
        return units(item)

    def check(self) -> None:
        check(self, *_EXPECTED[self._kind])

    def run(self, items: Sequence[Series]) -> list[Forecast]:
        """Forecasts in the order of the items. An answer is the same alone and in any batch, to 1e-9 of its scale."""
        with settings(self._device):
            batch = Batch(items, self._device, self.walk)
            suspect, current, warnings = suspects(batch.path), items, dict[int, Warnings]()
            if suspect:
                current = list(items)
                for row in suspect:
                    current[row], warnings[row] = examine(items[row])
            treated = [row for row in suspect if current[row] is not items[row]]
            if treated:
                batch = Batch(current, self._device, self.walk)
            gates, moving = self._gates(batch, treated), self._moving(batch)
            if len(moving) == len(items) and not any(gates):
                return self._resumed(batch, moving, warnings)
            answers = self._run(batch, gates, warnings)
            halted = {row: item for row, item in moving.items() if not answers[row].gate}
            if halted:
                for row, answer in zip(halted, self._resumed(batch, halted, warnings), strict=True):
                    answers[row] = answer
            return answers

    def _moving(self, batch: Batch) -> dict[int, Series]:
        """By row, the items that have halts, without their halts. Phases need all values."""
        found = dict[int, Series]()
        if self.walk is POOLED and batch.path.still >= halts.LEAST_RUN:
            for row in halts.candidates(batch.path):
                item = batch.items[row]
                kept = None if item.period or item.times is not None else halts.moving(item.values)
                if kept is not None:
                    found[row] = item._replace(values=item.values[kept])
        return found

    def _resumed(self, batch: Batch, moving: Mapping[int, Series], warnings: Mapping[int, Warnings]) -> list[Forecast]:
        """The answers of rows with a closed gate by the random walk of their ``moving`` values alone."""
        short = Batch([*moving.values()], self._device, self.walk)
        found = short.answers(short.random_walk(), [0.0] * len(moving), self._walk_coverage(short), {})
        return [
            answer._replace(context=batch.lengths[row], warnings=resting(warnings.get(row, ())) + answer.warnings)
            for row, answer in zip(moving, found, strict=True)
        ]

    def _run(self, batch: Batch, gates: list[float], warnings: Mapping[int, Warnings]) -> list[Forecast]:
        """The answers; ``warnings`` are about the data, by row."""
        opened = [row for row, share in enumerate(gates) if share > 0]
        judged = self._judged(batch, opened, gates)
        outlook = batch.random_walk()
        for rows in batch.parts([row for row in opened if gates[row] > 0]):
            weight = batch.numbers([gates[row] for row in rows])
            outlook = outlook.mixed(batch.vector(rows), weight[:, None], self._structured(batch, rows, judged.widths))
        plain = [row for row in judged.plain if gates[row] > 0.5]
        return batch.answers(outlook, gates, judged.coverage, warnings, plain)

    def _gates(self, batch: Batch, treated: Sequence[int]) -> list[float]:
        if self._kind in ("vol_rw", "ridge_ar"):
            return [float(self._kind == "ridge_ar")] * len(batch.items)
        opens_at: AnyArray = gate.OPENS_AT
        if treated:
            rows = set(treated)
            limits = (gate.OPENS_AT, gate.OPENS_AT_TREATED)
            opens_at = batch.numbers([limits[row in rows] for row in range(len(batch.items))])
        found: list[float] = self.gate(batch.path, opens_at).tolist()
        return found

    def _structured(self, batch: Batch, rows: Sequence[int], widths: Mapping[int, float]) -> Outlook:
        width = batch.numbers([widths[row] for row in rows]) if widths else None
        return batch.structured(batch.vector(rows), self.structure, width)

    def _judged(self, batch: Batch, rows: Sequence[int], gates: list[float]) -> Judged:
        """The coverage of every row by the forecast of the row; ``rows`` mix in the structured model.

        The trial of a judged model lowers their ``gates``.
        """
        found = self._walk_coverage(batch)
        if not rows:
            return Judged(found, {}, ())
        widths, plain = dict[int, float](), list[int]()
        for part in batch.parts(rows):
            places = batch.vector(part)
            horizons = [batch.horizons[row] for row in part]
            counts = [autoregression.room(batch.lengths[row], batch.horizons[row]) for row in part]
            weight = batch.numbers([gates[row] for row in part])
            mixed = coverage.mixture(
                batch.path.select(places),
                batch.vector(horizons),
                counts,
                weight,
                max(horizons),
                self.walk,
                self.structure,
                None if batch.season is None else batch.season.select(places),
            )
            if not self.structure.judged:
                found.replace(part, places, mixed.coverage)
                continue
            shares = mixed.weight.tolist()
            for row, share, width, logs in zip(part, shares, mixed.width.tolist(), mixed.logs.tolist(), strict=True):
                gates[row], widths[row] = share, width
                if not logs:
                    plain.append(row)
            kept = [index for index, share in enumerate(shares) if share > 0]
            still = [part[index] for index in kept]
            found.replace(still, batch.vector(still), mixed.coverage.select(kept, batch.vector(kept)))
        return Judged(found, widths, plain)

    def _walk_coverage(self, batch: Batch) -> Coverage:
        horizon = batch.horizon if batch.every is None else batch.every
        return coverage.random_walk(horizon, [*batch.origins], batch.walk, self.walk.edges)


def _torch_device(device: str) -> Device:
    require(f"forecasts on {device}", "cuda", "torch")
    import torch

    return torch.device(device)


def bucket(item: Series) -> Hashable:
    """Classes of context and horizon: padding at most doubles a row, short horizons do not wait for long ones."""
    return _class(len(item.values), item.horizon)


@lru_cache(maxsize=1 << 14)
def _class(points: int, horizon: int) -> Hashable:
    return max(points - 2, 31).bit_length(), next(longest for longest in _HORIZON_CLASSES if horizon <= longest)


def units(item: Series) -> int:
    """The points of the context plus the points of the answer."""
    return len(item.values) + item.horizon * len(item.levels)
