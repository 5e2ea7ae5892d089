"""The training loop that the neural recipes have in common: steps, moving average, the best epoch, checkpoints.

Owns the whole state of a run, so that a run that was interrupted and resumed ends with the same bits as one that was
not: parameters, optimiser, average, random numbers, and the place in the order of the data. The seed and
the number of an epoch decide the order.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.recipes import checkpoint
from training.recipes.recipe import Chronos2, Classifier, Sentiment
from training.recipes.run import StoppedError, Surroundings

_MEASURED_EVERY = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to train and how fast. `rates` maps the beginning of a parameter's name to its learning rate."""

    epochs: int
    steps: int
    batch: int
    seed: int
    warm_up: float
    clip: float
    decay: float
    averaging: float
    rates: Mapping[str, float]

    @classmethod
    def of(cls, recipe: Sentiment | Classifier | Chronos2, rates: Mapping[str, float]) -> "Plan":
        return cls(
            epochs=recipe.epochs, steps=recipe.steps, batch=recipe.batch, seed=recipe.seed, warm_up=recipe.warm_up,
            clip=recipe.clip, decay=recipe.decay, averaging=recipe.averaging, rates=rates,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Judged:
    """The score of the parameters after an epoch, lower is better, and the tensors to keep."""

    score: float
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


@dataclass
class _State:
    step: int = 0
    averaged: int = 0
    best: Judged | None = None
    best_epoch: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    average: dict[str, Tensor] = field(default_factory=dict)


class Loop:
    """Trains the parameters that ask for gradients. Batches hold rows of similar `lengths`.

    `loss(rows)` is the mean loss of the rows with these indices; `judge(epoch)` looks at the averaged parameters.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        plan: Plan,
        lengths: Sequence[int],
        loss: Callable[[Sequence[int]], Tensor],
        judge: Callable[[int], Judged],
    ) -> None:
        self._model = model
        self._plan = plan
        self._lengths = lengths
        self._loss = loss
        self._judge = judge
        self._trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self._optimiser = self._make_optimiser()
        self._state = _State(average={name: value.detach().clone() for name, value in self._trained.items()})
        self._per_epoch = math.ceil(len(lengths) / plan.batch)
        whole = plan.epochs * self._per_epoch
        self.steps = min(whole, plan.steps) if plan.steps else whole

    def run(self, around: Surroundings) -> tuple[int, Judged]:
        """The best epoch and its score. Raises StoppedError when told to stop."""
        torch.manual_seed(self._plan.seed)
        if around.resume is not None:
            self._restore(around.resume)
        state = self._state
        while state.step < self.steps:
            epoch, place = divmod(state.step, self._per_epoch)
            for rows in self._batches(epoch)[place:]:
                self._step(rows, around)
                if state.step % self._per_epoch == 0 or state.step == self.steps:
                    self._end_epoch(epoch + 1, around)
                around.checkpoint(state.step, self._save)
                if around.stopping():
                    raise StoppedError
                if state.step == self.steps:
                    break
        if state.best is None:
            raise RuntimeError("no epoch was judged")
        return state.best_epoch, state.best

    def _step(self, rows: Sequence[int], around: Surroundings) -> None:
        state, plan = self._state, self._plan
        self._model.train()
        loss = self._loss(rows)
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(list(self._trained.values()), plan.clip)
        share = _rate(state.step, self.steps, plan.warm_up)
        for group in self._optimiser.param_groups:
            group["lr"] = group["rate"] * share
        self._optimiser.step()
        state.step += 1
        self._average()
        state.loss_sum += float(loss.detach())
        state.loss_count += 1
        if state.step % _MEASURED_EVERY == 0 or state.step == self.steps:
            mean = state.loss_sum / state.loss_count
            around.measure(state.step, self.steps, {"loss": mean, "gradient_norm": float(norm), "rate": share})
            state.loss_sum, state.loss_count = 0.0, 0

    def _average(self) -> None:
        """An exponential moving average of the parameters; the first steps weigh as in a plain mean."""
        state = self._state
        state.averaged += 1
        new = max(1 - self._plan.averaging, 1 / (state.averaged + 1))
        for name, value in self._trained.items():
            state.average[name].lerp_(value.detach(), new)

    def _end_epoch(self, epoch: int, around: Surroundings) -> None:
        state = self._state
        self._swap()
        judged = self._judge(epoch)
        self._swap()
        numbers = {name: value for name, value in judged.facts.items() if isinstance(value, float)}
        around.measure(state.step, self.steps, {**numbers, "score": judged.score})
        print(f"epoch {epoch}, step {state.step} of {self.steps}: score {judged.score:.4f}", flush=True)
        if state.best is None or judged.score < state.best.score:
            state.best, state.best_epoch = judged, epoch

    def _swap(self) -> None:
        """Exchange the parameters and their averages."""
        for name, value in self._trained.items():
            kept = value.detach().clone()
            value.data.copy_(self._state.average[name])
            self._state.average[name] = kept

    def _batches(self, epoch: int) -> list[list[int]]:
        """All rows once, in batches of similar length, in an order that the seed and the epoch decide."""
        chance = random.Random(self._plan.seed * 1_000_003 + epoch)  # noqa: S311 -- shuffling needs no secrecy
        order = sorted(range(len(self._lengths)), key=lambda row: (self._lengths[row], chance.random()))
        size = self._plan.batch
        groups = [order[start : start + size] for start in range(0, len(order), size)]
        chance.shuffle(groups)
        return groups

    def _make_optimiser(self) -> torch.optim.AdamW:
        """One group for each rate; a parameter belongs to the longest beginning of its name."""
        groups: dict[str, list[Tensor]] = {start: [] for start in self._plan.rates}
        for name, value in self._trained.items():
            groups[max((start for start in groups if name.startswith(start)), key=len)].append(value)
        made = [{"params": values, "rate": self._plan.rates[start]} for start, values in groups.items() if values]
        return torch.optim.AdamW(made, lr=1.0, weight_decay=self._plan.decay)

    def _save(self, folder: Path) -> None:
        state = self._state
        tensors: dict[str, Tensor] = {"random": torch.get_rng_state()}
        for name, value in self._trained.items():
            tensors[f"value.{name}"] = value.detach()
            tensors[f"average.{name}"] = state.average[name]
            for part, kept in self._optimiser.state[value].items():
                tensors[f"optimiser.{part}.{name}"] = kept
        described: dict[str, Any] = {
            "step": state.step,
            "averaged": state.averaged,
            "loss_sum": state.loss_sum,
            "loss_count": state.loss_count,
            "plan": self._described(),
        }
        if state.best is not None:
            tensors |= {f"best.{name}": value for name, value in state.best.tensors.items()}
            described["best"] = {"epoch": state.best_epoch, "score": state.best.score, "facts": dict(state.best.facts)}
        checkpoint.save(folder, tensors, described)

    def _restore(self, folder: Path) -> None:
        """Raises WrongCheckpointError when the checkpoint is another recipe's."""
        tensors, described = checkpoint.load(folder)
        if described["plan"] != self._described():
            raise checkpoint.WrongCheckpointError("the checkpoint is of another recipe or other data")
        state = self._state
        for name, value in self._trained.items():
            value.data.copy_(tensors[f"value.{name}"])
            state.average[name] = tensors[f"average.{name}"]
            parts = {key.split(".")[1]: key for key in tensors if key.startswith("optimiser.") and _ends(key, name)}
            self._optimiser.state[value] = {part: tensors[key].clone() for part, key in parts.items()}
        torch.set_rng_state(tensors["random"])
        state.step, state.averaged = described["step"], described["averaged"]
        state.loss_sum, state.loss_count = described["loss_sum"], described["loss_count"]
        if best := described.get("best"):
            kept = {key.removeprefix("best."): value for key, value in tensors.items() if key.startswith("best.")}
            state.best, state.best_epoch = Judged(best["score"], kept, best["facts"]), best["epoch"]

    def _described(self) -> dict[str, Any]:
        plan = {name: getattr(self._plan, name) for name in Plan.__slots__ if name != "rates"}
        return {**plan, "rates": dict(self._plan.rates), "rows": len(self._lengths)}


def _ends(key: str, name: str) -> bool:
    return key.split(".", 2)[2] == name


def _rate(step: int, steps: int, warm_up: float) -> float:
    """Linear warm-up, then linear to zero, as a share of the highest rate."""
    rising = max(1, int(warm_up * steps))
    return min((step + 1) / rising, max(0.0, (steps - step) / max(1, steps - rising)))
