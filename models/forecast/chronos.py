"""Chronos, Chronos-Bolt and Chronos-2 (PyPI `chronos-forecasting`, Apache-2.0) from a local folder or a hub id.

Owns loading and calls. The networks answer at nine or more fixed levels; pretrained.py serves other levels.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
import torch

from models.forecast.pretrained import Pretrained, Together
from models.forecast.series import Array, Forecast, Series
from models.missing_weights import refuse_missing_of
from models.model import Model, ModelUnavailableError
from models.weights_version import weights_version

_DECILES = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))
_SEED = 0
NATIVE_HORIZON = "We recommend keeping prediction length"
"""The beginning of the warning about a horizon beyond the native one."""
_DRAWING = Lock()


def load(name: str, device: str, source: str | None, backtests: int) -> Model[Series, Forecast]:
    """The Chronos of kind ``name`` with the weights at ``source``."""
    if source is None:
        raise ModelUnavailableError(f"{name} needs a source: a local folder or a hub id with its weights")
    import chronos

    kinds: dict[str, tuple[type, type[Chronos]]] = {
        "chronos": (chronos.ChronosPipeline, Sampled),
        "chronos_bolt": (chronos.ChronosBoltPipeline, Bolt),
        "chronos_2": (chronos.Chronos2Pipeline, Chronos2),
    }
    try:
        pipeline = chronos.BaseChronosPipeline.from_pretrained(source, device_map=device, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise ModelUnavailableError(f"{name}: no Chronos weights at {source}: {error}") from error
    refuse_missing_of(name, pipeline.inner_model, source)
    expected, kind = kinds[name]
    if not isinstance(pipeline, expected):
        raise ModelUnavailableError(f"{name}: the weights at {source} are those of a {type(pipeline).__name__}")
    return Pretrained(name, kind(pipeline, source, torch.device(device)), backtests)


class Chronos(ABC):
    """The common part of the three kinds; subclasses add levels, strides and the call."""

    revision = ""
    """The end of the version, another one when the answers of the same weights change."""

    def __init__(self, pipeline: Any, source: str, device: torch.device) -> None:
        self.version = weights_version(source, pipeline.inner_model.config) + self.revision
        self.device = device
        self.longest: int = pipeline.model_context_length
        self.levels: tuple[float, ...] = tuple(getattr(pipeline, "quantiles", _DECILES))
        self._pipeline = pipeline
        # Past the native horizon, Chronos continues from the forecast so far, and warns on every call. Filters are the
        # process's: with catch_warnings() around each call, two threads would restore each other's filters.
        warnings.filterwarnings("ignore", message=NATIVE_HORIZON, category=UserWarning)

    def steps(self, horizon: int) -> int:
        return horizon

    def _predict(self, contexts: Sequence[Any], horizon: int) -> Any:
        return self._pipeline.predict(contexts, prediction_length=horizon)

    def _restored(self, found: torch.Tensor, contexts: Sequence[Array]) -> torch.Tensor:
        """The network's answer [b, levels, horizon] to contexts without their newest value, with that value."""
        newest = torch.tensor([*map(_newest, contexts)], dtype=torch.float64, device=self.device)
        return found.to(self.device, torch.float64).mT + newest[:, None, None]

    @abstractmethod
    def quantiles(self, contexts: Sequence[Array], horizon: int) -> torch.Tensor: ...


class Sampled(Chronos):
    """Chronos (T5): tokens drawn at random, per series from the same seed: the batch has no influence."""

    def quantiles(self, contexts: Sequence[Array], horizon: int) -> torch.Tensor:
        return torch.stack([self._draw(context, horizon) for context in contexts])

    def _draw(self, context: Array, horizon: int) -> torch.Tensor:
        """[horizon, 9]: the deciles of the sampled paths."""
        used = [self.device] if self.device.type == "cuda" else []
        # The generators are the process's: between the seed and the last draw no other thread may draw.
        with _DRAWING, torch.random.fork_rng(devices=used):
            torch.manual_seed(_SEED)
            paths = self._predict([torch.from_numpy(context)], horizon)[0]
        levels = torch.tensor(self.levels, dtype=torch.float64, device=self.device)
        return torch.quantile(paths.to(self.device, torch.float64), levels, dim=0).mT


class Bolt(Chronos):
    """Chronos-Bolt: quantiles of a block of steps at once, continued from the predicted quantiles."""

    revision = ".2"

    def quantiles(self, contexts: Sequence[Array], horizon: int) -> torch.Tensor:
        found = self._predict([torch.from_numpy(context - _newest(context)) for context in contexts], horizon)
        return self._restored(found, contexts)


class Chronos2(Chronos):
    """Chronos-2: the steps ahead attend to each other, so a forecast consists of whole output patches.

    Rows of one task attend to each other: several series, and covariates, whose values ahead may be known.
    """

    revision = ".2"

    def steps(self, horizon: int) -> int:
        patch: int = self._pipeline.model_output_patch_size
        return -(-horizon // patch) * patch

    def quantiles(self, contexts: Sequence[Array], horizon: int) -> torch.Tensor:
        return self.together([Together([context], np.empty((0, horizon))) for context in contexts], horizon)

    def together(self, tasks: Sequence[Together], horizon: int) -> torch.Tensor:
        found = self._predict([_prepared(task, horizon) for task in tasks], horizon)
        series = [one for task in tasks for one in task.contexts[: len(task.contexts) - len(task.future)]]
        return self._restored(torch.cat(found), series)


def _newest(context: Array) -> float:
    """The newest value, 0 without one: the level that a network does not see.

    Networks take the mean and the deviation in float32, over rows padded to the longest of the batch. The rounding of a
    level would be the deviation of a series without movement, and other companions would give another one.
    """
    known = context[~np.isnan(context)]
    return float(known[-1]) if len(known) else 0.0


def _prepared(task: Together, horizon: int) -> dict[str, Any]:
    """The task as chronos-forecasting's PreparedInput: series first, contexts that end together, NaN for no value."""
    rows, known = len(task.contexts), len(task.future)
    past = np.full((rows, max(map(len, task.contexts))), np.nan, dtype=np.float32)
    for row, context in zip(past, task.contexts, strict=True):
        row[-len(context) :] = context - _newest(context)
    ahead = np.full((rows, horizon), np.nan, dtype=np.float32)
    for row, context, future in zip(ahead[rows - known :], task.contexts[rows - known :], task.future, strict=True):
        row[: len(future)] = future - _newest(context)
    return {
        "context": torch.from_numpy(past),
        "future_covariates": torch.from_numpy(ahead),
        "n_targets": rows - known,
        "n_covariates": known,
        "n_future_covariates": known,
    }
