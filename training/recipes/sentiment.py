"""`kind: sentiment`: low-rank adapters and a head on the embedded encoder, temperature refit, a folder to serve.

Owns the way from a recipe and a dataset to a model folder. The network is models/sentiment's, the loop is loop.py's.
"""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from models.sentiment.adapter import adapt
from models.sentiment.encoder import Classifier, Packed
from models.sentiment.minilm import plain, tokenizer
from training.recipes import evaluation, texts
from training.recipes.loop import Judged, Loop, Plan
from training.recipes.recipe import SENTIMENT_LABELS, Sentiment
from training.recipes.run import DataRefusedError, Outcome, Surroundings
from training.recipes.split import Divided, divide
from training.sentiment import fit
from training.sentiment.export import export
from training.sentiment.phrases import phrases
from training.sentiment.rows import Encoded, Row, encode

NAME = "minilm_tuned"
"""The model's name in requests: the name of the embedded model would replace that model in a registry."""


def train(recipe: Sentiment, around: Surroundings) -> Outcome:
    """Train, judge each epoch on the newest rows, and write the best one. Raises DataRefusedError, StoppedError."""
    torch.set_num_threads(recipe.threads)
    divided = divide(texts.read(around.data, SENTIMENT_LABELS), recipe.split, recipe.seed)
    if len({row.label for row in divided.train}) < 2:
        raise DataRefusedError("every row to train on has the same label")
    words = tokenizer()
    rows = [Row(row.text, row.label) for row in divided.train] + phrases(recipe.phrases, recipe.seed)
    train_set = encode(rows, words, recipe.length)
    validate = encode([Row(row.text, row.label) for row in divided.validate], words, recipe.length)
    print(f"{len(train_set)} rows to train on, {len(validate)} to validate on, {divided.purged} left out", flush=True)
    torch.manual_seed(recipe.seed)
    model = Classifier.of(plain(), dropout=recipe.dropout)
    adapt(model, recipe.rank, recipe.scale, recipe.dropout / 2)
    loop = Loop(
        model,
        Plan.of(recipe, {"": recipe.adapter_rate, "head.": recipe.head_rate}),
        [len(row.ids) for row in train_set],
        lambda rows: _loss(model, [train_set[row] for row in rows], recipe.smoothing),
        lambda epoch: _judged(model, validate, epoch),
    )
    epoch, best = loop.run(around)
    held = encode([Row(row.text, row.label) for row in divided.judged], words, recipe.length)
    return _export(recipe, model, epoch, best, divided, held, around.out)


def _loss(model: Classifier, rows: Sequence[Encoded], smoothing: float) -> Tensor:
    labels = torch.tensor([row.label for row in rows])
    return F.cross_entropy(model(Packed.of([row.ids for row in rows])), labels, label_smoothing=smoothing)


def _judged(model: Classifier, validate: Sequence[Encoded], epoch: int) -> Judged:
    fitted = fit.judged(model, {"validation": validate}, epoch)
    numbers = fitted.measures["validation"].numbers
    return Judged(fitted.nll, fitted.adapter, {"temperature": fitted.temperature, **numbers})


def _export(
    recipe: Sentiment,
    model: Classifier,
    epoch: int,
    best: Judged,
    divided: Divided,
    held: Sequence[Encoded],
    out: Path,
) -> Outcome:
    temperature = float(best.facts["temperature"])
    model.load_state_dict({name: value.float() for name, value in best.tensors.items()}, strict=False)
    fitted = fit.Fitted(dict(best.tensors), temperature, epoch, {})
    settings = {option.name: getattr(recipe, option.name) for option in fields(fit.Recipe)}
    export(fitted, fit.Recipe(**settings), recipe.version, out, name=NAME)
    rows = [row.row for row in divided.judged]
    evaluation.write_texts(out, rows, _answers(model, temperature, held))
    numbers = {name: float(value) for name, value in best.facts.items()}
    return Outcome({**numbers, **divided.counts, "epoch": float(epoch)})


def _answers(model: Classifier, temperature: float, rows: Sequence[Encoded]) -> list[list[float]]:
    """Probabilities of the rows, in order."""
    model.eval()
    order = sorted(range(len(rows)), key=lambda place: len(rows[place].ids))
    found: list[list[float]] = [[]] * len(rows)
    with torch.inference_mode():
        for start in range(0, len(order), 64):
            part = order[start : start + 64]
            answers = (model(Packed.of([rows[place].ids for place in part])) / temperature).softmax(1)
            for place, answer in zip(part, answers.tolist(), strict=True):
                found[place] = answer
    return found
