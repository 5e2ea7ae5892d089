"""`kind: chronos2`: a Chronos-2 forecaster fine-tuned on bars, whole or by low-rank adapters, merged on export.

Owns the windows and the walk-forward validation. The package's own fit() cannot resume from a checkpoint, so that the
loop is loop.py's. The export is a folder that `BaseChronosPipeline.from_pretrained` loads without peft.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from chronos import BaseChronosPipeline, Chronos2Pipeline
from peft import LoraConfig
from torch import Tensor

from models.missing_weights import refuse_missing_of
from models.model import ModelUnavailableError
from training.recipes import evaluation, origins
from training.recipes.adapters import adapted
from training.recipes.bars import read
from training.recipes.folder import write_manifest
from training.recipes.loop import Judged, Loop, Plan
from training.recipes.recipe import Chronos2
from training.recipes.run import DataRefusedError, Outcome, Surroundings

_ADAPTED = ["self_attention.q", "self_attention.v", "self_attention.k", "self_attention.o"]
_OUTPUT = "output_patch_embedding.output_layer"
_EVALUATED_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Window:
    """A row of a batch: a symbol's bars before `end`, and the bars of the horizon from `end` on."""

    symbol: str
    end: int


def train(recipe: Chronos2, around: Surroundings) -> Outcome:
    """Train, judge each epoch on the newest origins, merge and write the best one. Raises DataRefusedError."""
    torch.set_num_threads(recipe.threads)
    closes = {symbol: values.astype(np.float32) for symbol, values in read(around.data).items()}
    older, newest, held = divide(closes, recipe)
    torch.manual_seed(recipe.seed)
    pipeline = _load(recipe)
    model: Any = pipeline.model
    if recipe.mode == "lora":
        model = adapted(model, _adapters(recipe))

    def loss(rows: Sequence[int]) -> Tensor:
        found: Tensor = _run(model, [older[row] for row in rows], closes, recipe).loss
        return found

    plan = Plan.of(recipe, {"": recipe.rate})
    before = _judged(model, newest, closes, recipe).score
    loop = Loop(model, plan, [1] * len(older), loss, lambda epoch: _judged(model, newest, closes, recipe))
    epoch, best = loop.run(around)
    model.load_state_dict(dict(best.tensors), strict=False)
    _write_evaluation(model, held or newest, closes, recipe, around.out)
    merged = model.merge_and_unload() if recipe.mode == "lora" else model
    Chronos2Pipeline(merged).save_pretrained(around.out)
    write_manifest(
        around.out,
        {evaluation.NAME},
        kind="forecast",
        architecture="chronos_2",
        name="chronos2",
        version=recipe.version,
        dtype="float32",
        quantile_levels=tuple(float(level) for level in model.chronos_config.quantiles),
    )
    counts = {
        "windows": float(len(older)),
        "validation_windows": float(len(newest)),
        "gate_windows": float(len(held)),
        "epoch": float(epoch),
    }
    return Outcome({"loss": best.score, "loss_before": before, "gain": 1 - best.score / before, **counts})


def divide(
    closes: Mapping[str, npt.NDArray[np.float32]], recipe: Chronos2
) -> tuple[list[Window], list[Window], list[Window]]:
    """Windows to train on, to validate on, and held back for the gate: no part sees the bars of a later part.

    Raises DataRefusedError when a part is empty.
    """
    older: list[Window] = []
    newest: list[Window] = []
    held: list[Window] = []
    for symbol, values in sorted(closes.items()):
        gate = origins.held_back(recipe, len(values))
        bars = len(values) - recipe.horizon * len(gate)
        validate = origins.newest(origins.lattice(bars, recipe.horizon, recipe.horizon), recipe.split.validation)
        last = bars - recipe.horizon * len(validate)
        held += [Window(symbol, int(end)) for end in gate]
        newest += [Window(symbol, int(end)) for end in validate]
        older += [Window(symbol, end) for end in range(recipe.horizon, last - recipe.horizon + 1)]
    if not older or not newest:
        raise DataRefusedError(f"no symbol has bars for training and validation at horizon {recipe.horizon}")
    return older, newest, held


def _load(recipe: Chronos2) -> Any:
    where = {"revision": recipe.revision} if recipe.revision else {}
    try:
        found = BaseChronosPipeline.from_pretrained(recipe.base, device_map="cpu", dtype=torch.float32, **where)
        refuse_missing_of(recipe.base, found.inner_model, recipe.base, **where)
    except (OSError, ValueError, ModelUnavailableError) as error:
        raise DataRefusedError(f"the base {recipe.base!r} cannot be had: {str(error).splitlines()[0]}") from error
    if not isinstance(found, Chronos2Pipeline):
        raise DataRefusedError(f"the base {recipe.base!r} is a {type(found).__name__}, no Chronos-2")
    if missing := sorted(set(recipe.levels) - set(found.quantiles)):
        raise DataRefusedError(f"levels: the base {recipe.base!r} has no quantile {missing[0]:g}")
    return found


def _adapters(recipe: Chronos2) -> LoraConfig:
    """On the attention's projections and the output, as the package's own fit() places adapters."""
    alpha = int(recipe.scale * recipe.rank)
    return LoraConfig(r=recipe.rank, lora_alpha=alpha, target_modules=[*_ADAPTED, _OUTPUT])


def _run(model: Any, windows: Sequence[Window], closes: dict[str, npt.NDArray[np.float32]], recipe: Chronos2) -> Any:
    """The network's output, with its loss, for windows padded at the left with NaN."""
    contexts = np.full((len(windows), recipe.context), np.nan, np.float32)
    targets = np.empty((len(windows), recipe.horizon), np.float32)
    for row, window in enumerate(windows):
        past = closes[window.symbol][max(0, window.end - recipe.context) : window.end]
        contexts[row, recipe.context - len(past) :] = past
        targets[row] = closes[window.symbol][window.end : window.end + recipe.horizon]
    patch = model.chronos_config.output_patch_size
    return model(
        context=torch.from_numpy(contexts),
        future_target=torch.from_numpy(targets),
        group_ids=torch.arange(len(windows)),
        num_output_patches=-(-recipe.horizon // patch),
    )


def _judged(
    model: Any, windows: Sequence[Window], closes: dict[str, npt.NDArray[np.float32]], recipe: Chronos2
) -> Judged:
    """The mean loss over the newest windows, scaled by the network itself."""
    model.eval()
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(windows), _EVALUATED_AT_ONCE):
            part = windows[start : start + _EVALUATED_AT_ONCE]
            total += float(_run(model, part, closes, recipe).loss) * len(part)
    kept = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
    return Judged(total / len(windows), kept, {"validation_loss": total / len(windows)})


def _write_evaluation(
    model: Any, windows: Sequence[Window], closes: dict[str, npt.NDArray[np.float32]], recipe: Chronos2, out: Path
) -> None:
    """The last step's quantiles of the windows, at the recipe's levels."""
    own = sorted(model.chronos_config.quantiles)
    levels = sorted(set(recipe.levels))
    places = [own.index(level) for level in levels]
    bands: list[list[float]] = []
    model.eval()
    with torch.no_grad():
        for start in range(0, len(windows), _EVALUATED_AT_ONCE):
            part = windows[start : start + _EVALUATED_AT_ONCE]
            found = _run(model, part, closes, recipe).quantile_preds[:, :, recipe.horizon - 1]
            bands += found.sort(1).values[:, places].tolist()
    evaluation.write_bands(out, [(window.symbol, window.end) for window in windows], levels, bands)
