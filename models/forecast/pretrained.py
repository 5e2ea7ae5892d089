"""Pretrained forecasters as models: any network with quantiles at fixed levels becomes a Model of series.

Owns levels, answers and backtests around a network. The network is a Foundation: fracast, chronos or timesfm.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, Protocol, overload, runtime_checkable

import numpy as np
import torch

from models.forecast import answer_warnings
from models.forecast.backtests import BACKTESTS, past, with_coverage
from models.forecast.batch import Outlook
from models.forecast.embedded import bucket, units
from models.forecast.interpolation import weights
from models.forecast.path import LARGEST
from models.forecast.selftest import SelfTestError, seasonal
from models.forecast.series import Array, Forecast, Group, Series, members

# Values of the series and covariates of a group together: a group is one item of a batch, which nothing interrupts, and
# must not take much longer than a long series alone.
MOST_VALUES = 1 << 14


class Together(NamedTuple):
    """What a network forecasts together. ``contexts``: of the series, then of the covariates, each float64 [T].

    ``future``: float64 [covariates, horizon]. NaN stands for what is missing or not known.
    """

    contexts: Sequence[Array]
    future: Array


class Foundation(Protocol):
    """A pretrained network: the known ``levels``, increasing; the ``longest`` context, in points."""

    levels: tuple[float, ...]
    longest: int
    version: str
    device: torch.device

    def steps(self, horizon: int) -> int:
        """How many steps the network is run for when ``horizon`` are wanted; rows of equal steps share a batch."""
        ...

    def quantiles(self, contexts: Sequence[Array], horizon: int) -> torch.Tensor:
        """[len(contexts), horizon, levels] float64 on ``device``, in the units of the context (float64 [T], |x| < 2).

        ``horizon`` is a result of steps(). Rows are independent.
        """
        ...


@runtime_checkable
class Joint(Foundation, Protocol):
    """A Foundation that takes covariates and groups."""

    def together(self, tasks: Sequence[Together], horizon: int) -> torch.Tensor:
        """[series of all tasks, horizon, levels]: as quantiles(), each series from all contexts of its task."""
        ...


class Pretrained:
    """A Foundation as a Model. The bands come from the network: on prices seldom better than the bands of `auto`."""

    fresh_answers = True

    def __init__(self, name: str, foundation: Foundation, backtests: int = BACKTESTS) -> None:
        self.name = name
        self.version = foundation.version
        self.takes = ("covariates", "groups") if isinstance(foundation, Joint) else ()
        self._foundation = foundation
        self._backtests = backtests

    def bucket(self, item: Series | Group) -> Hashable:
        own = members(item)
        rows = sum(one.rows for one in own)
        found = bucket(max(own, key=lambda one: len(one.values)))
        return found if rows == 1 else (found, rows.bit_length())

    def units(self, item: Series | Group) -> int:
        own = members(item)
        window = _window(own, self._foundation.longest)
        beside = sum((one.rows - 1) * (min(len(one.values), window) + one.horizon) for one in own)
        return (sum(map(units, own)) + beside) * (1 + len(past(item, self._backtests)))

    def check(self) -> None:
        """Forecast a stored series twice; raises SelfTestError unless the bands repeat, are ordered and not absurd.

        No answer is stored: the weights are the user's.
        """
        item = seasonal()
        found, again = (self._plain([item])[0].quantiles for _ in range(2))
        near = np.abs(found - item.values.mean()) <= 100 * np.ptp(item.values)
        if not near.all() or (found[:, 1:] < found[:, :-1]).any() or not np.array_equal(found, again):
            raise SelfTestError(f"{self.name}: the self-test found {found[-1].tolist()}, then {again[-1].tolist()}")

    @overload
    def run(self, items: Sequence[Series]) -> list[Forecast]: ...

    @overload
    def run(self, items: Sequence[Series | Group]) -> list[Forecast | tuple[Forecast, ...]]: ...

    def run(self, items: Sequence[Series] | Sequence[Series | Group]) -> Any:
        """Forecasts in the items' order; equal alone and in any batch to the network's float precision."""
        found = iter(with_coverage(items, self._plain(items), self._plain, self._backtests))
        return [tuple(next(found) for _ in item.members) if isinstance(item, Group) else next(found) for item in items]

    @torch.inference_mode()
    def _plain(self, items: Sequence[Series | Group]) -> list[Forecast]:
        """A forecast for each series, those of a group after each other."""
        examined = [answer_warnings.examine(one) for item in items for one in members(item)]
        treated = iter(one for one, _ in examined)
        groups = [[next(treated) for _ in members(item)] for item in items]
        series = [one for group in groups for one in group]
        steps, columns = max(one.horizon for one in series), max(len(one.levels) for one in series)
        found = outlook(self._foundation, groups, steps, columns)
        windows = [_window(group, self._foundation.longest) for group in groups for _ in group]
        point, quantiles = found.point.cpu().numpy(), found.quantiles.cpu().numpy()
        return [
            Forecast(
                point[row, : item.horizon],
                np.ascontiguousarray(quantiles[row, : item.horizon, : len(item.levels)]),
                gate=1.0,
                logs=False,
                context=min(len(item.values), windows[row]),
                coverage=float("nan"),
                coverage_count=0,
                warnings=warnings,
            )
            for row, (item, warnings) in enumerate(examined)
        ]


def outlook(foundation: Foundation, groups: Sequence[Sequence[Series]], steps: int, columns: int) -> Outlook:
    """The network's forecasts at the levels of every series, [b, steps] and [b, steps, columns].

    A series alone is a group of one.
    """
    device = foundation.device
    items = [item for group in groups for item in group]
    exponents = [_exponent(item.values) for item in items]
    known = _known(foundation, groups, exponents, steps)
    quantiles = known.new_zeros(len(items), steps, columns)
    for levels in dict.fromkeys(item.levels for item in items):
        rows = torch.tensor([row for row, item in enumerate(items) if item.levels == levels], device=device)
        share = weights(foundation.levels, levels, device)[:steps]
        # Rounding may swap nearly equal levels.
        quantiles[rows, :, : len(levels)] = torch.einsum("bhk,hak->bha", known[rows], share).cummax(2).values
    middle = weights(foundation.levels, (0.5,), device)[:steps, 0]
    power = torch.tensor(exponents, device=device)[:, None]
    point = torch.ldexp((known * middle).sum(2), power).clamp(-LARGEST, LARGEST)
    return Outlook(point, torch.ldexp(quantiles, power[:, :, None]).clamp(-LARGEST, LARGEST))


def _exponent(values: Array) -> int:
    """The power of two that brings the values below 2; NaN is left out.

    Powers of two change no digit, and keep the largest and the smallest series within the range of float32.
    """
    return int(np.frexp(np.max(np.abs(values), initial=0.0, where=~np.isnan(values)))[1]) - 1


def _known(
    foundation: Foundation, groups: Sequence[Sequence[Series]], exponents: Sequence[int], steps: int
) -> torch.Tensor:
    """[b, steps, levels]: the network's own quantiles, sorted; zeros beyond a row's horizon."""
    device = foundation.device
    known = torch.zeros(len(exponents), steps, len(foundation.levels), dtype=torch.float64, device=device)
    power, row = iter(exponents), 0
    runs: dict[int, tuple[list[int], list[Together]]] = {}
    for group in groups:
        longest = _window(group, foundation.longest)
        contexts = [np.ldexp(item.values[-longest:], -next(power)) for item in group]
        rows, tasks = runs.setdefault(foundation.steps(group[0].horizon), ([], []))
        rows += range(row, row + len(group))
        tasks.append(_with_covariates(contexts, group, longest))
        row += len(group)
    for run, (rows, tasks) in sorted(runs.items()):
        if isinstance(foundation, Joint):
            found = foundation.together(tasks, run)
        else:
            found = foundation.quantiles([task.contexts[0] for task in tasks], run)
        found = found[:, :steps]
        # Networks may cross quantiles; sorting never makes quantiles worse (Chernozhukov et al., 2010).
        known[torch.tensor(rows, device=device), : found.shape[1]] = found.sort(dim=2).values
    return known


def _window(group: Sequence[Series], longest: int) -> int:
    """The newest values that a network reads of each series and covariate of a group."""
    return min(longest, MOST_VALUES // sum(one.rows for one in group))


def _with_covariates(contexts: list[Array], group: Sequence[Series], longest: int) -> Together:
    """The group's series, scaled already, and its covariates, each scaled by a power of two of its own."""
    future = []
    for item in group:
        if item.covariates is not None:
            for past, ahead in zip(*item.covariates, strict=True):
                power = -_exponent(np.concatenate([past, ahead]))
                contexts.append(np.ldexp(past[-longest:], power))
                future.append(np.ldexp(ahead, power))
    return Together(contexts, np.array(future).reshape(len(future), group[0].horizon))


class Blockwise(ABC):
    """A Foundation whose network forecasts a block of ``block`` steps.

    Later blocks take earlier medians as observed values, so the bands of later blocks are too narrow.
    """

    levels: tuple[float, ...]
    longest: int
    block: int

    def steps(self, horizon: int) -> int:
        return -(-horizon // self.block) * self.block

    def quantiles(self, contexts: Sequence[Array], horizon: int) -> torch.Tensor:
        middle = min(range(len(self.levels)), key=lambda index: abs(self.levels[index] - 0.5))
        blocks = [self._next_block(contexts)]
        while len(blocks) * self.block < horizon:
            medians = blocks[-1][:, :, middle].cpu().numpy()
            pairs = zip(contexts, medians, strict=True)
            contexts = [np.concatenate([context, median])[-self.longest :] for context, median in pairs]
            blocks.append(self._next_block(contexts))
        return torch.cat(blocks, dim=1)[:, :horizon]

    @abstractmethod
    def _next_block(self, contexts: Sequence[Array]) -> torch.Tensor:
        """[b, block, levels]."""
