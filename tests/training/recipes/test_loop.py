"""The training loop on a small network: interrupted and resumed equals uninterrupted, bit for bit."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from training.recipes import checkpoint
from training.recipes.loop import Judged, Loop, Plan
from training.recipes.run import StoppedError, Surroundings

ROWS = 37
Losses = list[tuple[int, float]]
PLAN = Plan(epochs=3, steps=0, batch=8, seed=5, warm_up=0.1, clip=1.0, decay=0.01, averaging=0.9,
            rates={"": 0.05, "1.": 0.1})  # fmt: skip


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.Linear(12, 3), torch.nn.Dropout(0.3))


def loop(plan: Plan = PLAN) -> Loop:
    chance = torch.Generator().manual_seed(1)
    inputs, labels = torch.randn(ROWS, 6, generator=chance), torch.randint(3, (ROWS,), generator=chance)
    model = network()

    def judge(epoch: int) -> Judged:
        model.eval()
        with torch.inference_mode():
            score = float(F.cross_entropy(model(inputs), labels))
        model.train()
        kept = {name: value.detach().clone() for name, value in model.named_parameters()}
        return Judged(score, kept, {"epoch": epoch})

    def loss(rows: Sequence[int]) -> torch.Tensor:
        return F.cross_entropy(model(inputs[rows]), labels[rows])

    return Loop(model, plan, [row % 7 for row in range(ROWS)], loss, judge)


def around(
    folder: Path, stop_after: int = 0, resume: Path | None = None
) -> tuple[Surroundings, list[tuple[int, float]]]:
    """Keeps the newest checkpoint in the folder; stops after so many steps of this run."""
    losses: Losses = []
    steps = 0

    def keep(step: int, write: object) -> None:
        nonlocal steps
        steps += 1
        folder.mkdir(exist_ok=True)
        write(folder)

    def measure(step: int, total: int, values: dict[str, float]) -> None:
        losses.extend((step, value) for name, value in values.items() if name == "loss")

    made = Surroundings(
        data=folder, out=folder, resume=resume, measure=measure, checkpoint=keep,
        stopping=lambda: bool(stop_after) and steps >= stop_after,
    )  # fmt: skip
    return made, losses


@pytest.mark.parametrize("stop_after", [1, 3, 5, 7, 10, 14])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path, stop_after: int) -> None:
    whole, losses = around(tmp_path / "whole")
    epoch, best = loop().run(whole)
    first, before = around(tmp_path / "first", stop_after)
    with pytest.raises(StoppedError):
        loop().run(first)
    torch.manual_seed(999)
    torch.rand(10)
    second, after = around(tmp_path / "second", resume=tmp_path / "first")
    resumed_epoch, resumed = loop().run(second)
    assert (resumed_epoch, resumed.score) == (epoch, best.score)
    assert before + after == losses
    for name, value in best.tensors.items():
        assert torch.equal(value, resumed.tensors[name]), name
    tensors, _ = checkpoint.load(tmp_path / "whole")
    again, _ = checkpoint.load(tmp_path / "second")
    assert all(torch.equal(value, again[name]) for name, value in tensors.items())


def test_a_bound_on_steps_ends_within_an_epoch(tmp_path: Path) -> None:
    made, losses = around(tmp_path / "x")
    short = loop(Plan(**{**{name: getattr(PLAN, name) for name in Plan.__slots__}, "steps": 3}))
    epoch, _ = short.run(made)
    assert (short.steps, epoch, losses[-1][0]) == (3, 1, 3)


def test_another_recipes_checkpoint_is_refused(tmp_path: Path) -> None:
    first, _ = around(tmp_path / "first", 2)
    with pytest.raises(StoppedError):
        loop().run(first)
    other = Plan(**{**{name: getattr(PLAN, name) for name in Plan.__slots__}, "seed": 6})
    with pytest.raises(checkpoint.WrongCheckpointError, match="another recipe"):
        loop(other).run(around(tmp_path / "x", resume=tmp_path / "first")[0])


@pytest.mark.parametrize("file", [checkpoint.TENSORS, checkpoint.STATE])
def test_a_checkpoint_with_a_changed_file_is_refused(tmp_path: Path, file: str) -> None:
    first, _ = around(tmp_path / "first", 2)
    with pytest.raises(StoppedError):
        loop().run(first)
    content = bytearray((tmp_path / "first" / file).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "first" / file).write_bytes(bytes(content))
    with pytest.raises(checkpoint.WrongCheckpointError):
        loop().run(around(tmp_path / "x", resume=tmp_path / "first")[0])


def test_the_rate_and_the_loss_go_down(tmp_path: Path) -> None:
    made, losses = around(tmp_path / "x")
    loop(Plan(**{**{name: getattr(PLAN, name) for name in Plan.__slots__}, "epochs": 20})).run(made)
    assert losses[-1][1] < losses[0][1]
