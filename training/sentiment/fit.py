"""The training loop: low-rank adapters and a head on a frozen encoder, then a temperature; the best epoch is kept.

Owns the recipe and the constants. Data belong to rows.py, storing the result to export.py.
"""

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.lr_scheduler import LambdaLR

from models.sentiment.adapter import adapt, stored
from models.sentiment.encoder import Classifier, Packed
from training.sentiment.measures import Labels, Measures
from training.sentiment.rows import UNLABELLED, Encoded, batches

_REPORT_EVERY = 50


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of a run."""

    epochs: int = 3
    batch: int = 32
    rank: int = 16
    scale: float = 2.0
    adapter_rate: float = 5e-4
    head_rate: float = 1e-3
    decay: float = 0.01
    warm_up: float = 0.06
    clip: float = 1.0
    dropout: float = 0.1
    smoothing: float = 0.0
    averaging: float = 0.995
    length: int = 64
    seed: int = 1


@dataclass(frozen=True)
class Distillation(Recipe):
    """The hyperparameters of a run on rows of which some have a teacher's answers."""

    taught: float = 1.0
    """The weight of the divergence from the teacher's answers, beside 1 for the labels."""
    softening: float = 2.0
    """The temperature of both answers in the divergence."""
    dtype: str = field(default="float32", metadata={"choices": ("float32", "bfloat16")})
    """The dtype of the forward pass; the trained parameters are float32. bfloat16 is faster on CPUs with AMX."""


@dataclass(frozen=True)
class Fitted:
    """The tensors of the best epoch, the temperature, and the measures on each validation set after scaling."""

    adapter: dict[str, Tensor]
    temperature: float
    epoch: int
    measures: dict[str, Measures]

    @property
    def nll(self) -> float:
        """The mean negative log-likelihood over the validation sets, with equal weights."""
        return float(np.mean([measures.nll for measures in self.measures.values()]))


class Average:
    """An exponential moving average of the trained parameters; generalises better than the last step's parameters."""

    def __init__(self, model: Classifier, keep: float) -> None:
        self._model = model
        self._keep = keep
        self._steps = 0
        self._values = {name: value.detach().clone() for name, value in _trained(model)}

    def update(self) -> None:
        """Add the current values; the first steps are weighted as in a plain mean."""
        self._steps += 1
        new = max(1 - self._keep, 1 / (self._steps + 1))
        for name, value in _trained(self._model):
            self._values[name].lerp_(value.detach(), new)

    def __enter__(self) -> None:
        """Put the averages into the model; leaving the block restores the model's values."""
        self._swap()

    def __exit__(self, *_: object) -> None:
        self._swap()

    def _swap(self) -> None:
        for name, value in _trained(self._model):
            kept = value.detach().clone()
            value.data.copy_(self._values[name])
            self._values[name] = kept


class Run:
    """One training run: the adapted model, optimiser, schedule, and the average over the steps."""

    def __init__(
        self, model: Classifier, rows: Sequence[Encoded], recipe: Distillation, report: Callable[[str], None]
    ) -> None:
        steps = recipe.epochs * math.ceil(len(rows) / recipe.batch)
        self._model = model
        self._rows = rows
        self._recipe = recipe
        self._report = report
        self._chance = random.Random(recipe.seed)  # noqa: S311 - shuffling rows needs no secrecy
        self._optimiser = _optimiser(model, recipe)
        self._schedule = LambdaLR(self._optimiser, lambda step: _rate(step, steps, recipe.warm_up))
        self._average = Average(model, recipe.averaging)

    def epoch(self) -> None:
        """Train on all rows once."""
        self._model.train()
        began, total = time.monotonic(), 0.0
        for step, batch in enumerate(batches(self._rows, self._recipe.batch, self._chance), start=1):
            total += self._step(*batch)
            if step % _REPORT_EVERY == 0:
                speed = step / (time.monotonic() - began)
                self._report(f"  step {step}: mean loss {total / step:.4f}, {speed:.2f} steps/s")

    def judged(self, validate: Mapping[str, Sequence[Encoded]], epoch: int) -> Fitted:
        """Validate the averaged parameters."""
        with self._average:
            return judged(self._model, validate, epoch)

    def _step(self, packed: Packed, labels: Tensor, taught: Tensor) -> float:
        # The CPU kernel of flash attention is slower backward than the plain products.
        with sdpa_kernel(SDPBackend.MATH), precision(self._recipe.dtype):
            logits = self._model(packed).float()
        loss = F.cross_entropy(logits, labels, label_smoothing=self._recipe.smoothing, reduction="sum") / len(labels)
        loss = loss + self._recipe.taught * divergence(logits, taught, self._recipe.softening)
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_([value for _, value in _trained(self._model)], self._recipe.clip)
        self._optimiser.step()
        self._schedule.step()
        self._average.update()
        return float(loss.detach())


def fit(
    model: Classifier,
    train: Sequence[Encoded],
    validate: Mapping[str, Sequence[Encoded]],
    recipe: Distillation,
    report: Callable[[str], None],
    start: Mapping[str, Tensor] | None = None,
) -> Fitted:
    """Adapt the model in place and return the result of the epoch with the lowest validation NLL.

    `start`: a stored adapter of the same rank to continue from; the default is an adapter without effect.
    """
    torch.manual_seed(recipe.seed)
    adapt(model, recipe.rank, recipe.scale, recipe.dropout / 2)
    if start is not None:
        model.load_state_dict(start, strict=False)
    run = Run(model, train, recipe, report)
    best: Fitted | None = None
    for epoch in range(1, recipe.epochs + 1):
        run.epoch()
        fitted = run.judged(validate, epoch)
        report(f"epoch {epoch}: temperature {fitted.temperature:.3f}, mean NLL {fitted.nll:.4f}")
        for name, measures in fitted.measures.items():
            report(f"  {name}: {measures}")
        if best is None or fitted.nll < best.nll:
            best = fitted
    if best is None:
        raise ValueError("a recipe needs at least one epoch")
    return best


def judged(model: Classifier, validate: Mapping[str, Sequence[Encoded]], epoch: int) -> Fitted:
    """The tensors of an adapted model, the temperature over all validation sets, and the measures on each set."""
    answers = {name: logits(model, rows) for name, rows in validate.items()}
    divisor = temperature(list(answers.values()))
    measures = {
        name: Measures.of((values / divisor).softmax(1).numpy(), labels) for name, (values, labels) in answers.items()
    }
    return Fitted(stored(model), divisor, epoch, measures)


def logits(model: Classifier, rows: Sequence[Encoded]) -> tuple[Tensor, Labels]:
    """Float32 logits [n, labels] and the labels [n], in equal order (not the order of the rows)."""
    model.eval()
    with torch.inference_mode():
        parts = [(model(packed), labels) for packed, labels, _ in batches(rows, 64, random.Random(0))]  # noqa: S311
    model.train()
    return torch.cat([part for part, _ in parts]), torch.cat([labels for _, labels in parts]).numpy()


def precision(dtype: str) -> torch.autocast:
    """The context of a forward pass in a dtype by its name; float32 changes nothing."""
    return torch.autocast("cpu", getattr(torch, dtype), enabled=dtype != "float32")


def anchored(model: Classifier, rows: Sequence[Encoded], dtype: str) -> list[Encoded]:
    """The rows with the model's answers in place of their labels, ordered by length."""
    model.eval()
    ordered = sorted(rows, key=lambda row: len(row.ids))
    found = []
    with torch.inference_mode(), precision(dtype):
        for start in range(0, len(ordered), 64):
            part = ordered[start : start + 64]
            answers = model(Packed.of([row.ids for row in part])).float()
            found += [replace(row, label=UNLABELLED, taught=own) for row, own in zip(part, answers, strict=True)]
    return found


def divergence(logits: Tensor, taught: Tensor, softening: float) -> Tensor:
    """The mean over n rows of the Kullback-Leibler divergence from the teacher's answers; zero for rows without them.

    `logits`, `taught`: float [n, labels], the latter NaN for rows without a teacher. Both are divided by `softening`,
    whose square restores the size of the gradients (Hinton, Vinyals, Dean, 2015).
    """
    known = ~taught.isnan().any(1)
    ours, theirs = ((values[known] / softening).log_softmax(1) for values in (logits, taught))
    return F.kl_div(ours, theirs, reduction="sum", log_target=True) * softening**2 / len(logits)


def temperature(sets: Sequence[tuple[Tensor, Labels]]) -> float:
    """The divisor of the logits with the lowest NLL, sets weighted equally (Guo et al., 2017); grid of 0.01."""
    grid = torch.arange(0.5, 3.0, 0.01)
    losses = [
        sum(float(F.cross_entropy(values / divisor, torch.from_numpy(labels))) for values, labels in sets)
        for divisor in grid
    ]
    return round(float(grid[int(np.argmin(losses))]), 2)


def _trained(model: Classifier) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, value) for name, value in model.named_parameters() if value.requires_grad]


def _optimiser(model: Classifier, recipe: Recipe) -> torch.optim.AdamW:
    head = {"params": list(model.head.parameters()), "lr": recipe.head_rate}
    adapters = {"params": [v for name, v in _trained(model) if not name.startswith("head.")], "lr": recipe.adapter_rate}
    return torch.optim.AdamW([adapters, head], weight_decay=recipe.decay)


def _rate(step: int, steps: int, warm_up: float) -> float:
    """The learning rate's factor: linear warm-up, then linear to zero."""
    rising = max(1, int(warm_up * steps))
    return min((step + 1) / rising, max(0.0, (steps - step) / max(1, steps - rising)))
