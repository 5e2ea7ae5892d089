"""`kind: classifier`: low-rank adapters on any Hugging Face sequence classifier, merged on export.

Owns the way from a base model to a transformers folder in safetensors that needs no peft. No code of the base is run,
and no pickle is read.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, TaskType
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from models.missing_weights import refuse_missing_body
from models.model import ModelUnavailableError
from training.recipes import evaluation, texts
from training.recipes.adapters import adapted
from training.recipes.folder import write_manifest
from training.recipes.loop import Judged, Loop, Plan
from training.recipes.recipe import Classifier
from training.recipes.run import DataRefusedError, Outcome, Surroundings
from training.recipes.split import Divided, divide
from training.sentiment.fit import temperature
from training.sentiment.measures import Measures

_EVALUATED_AT_ONCE = 32


def train(recipe: Classifier, around: Surroundings) -> Outcome:
    """Train, judge each epoch on the newest rows, merge and write the best one. Raises DataRefusedError."""
    torch.set_num_threads(recipe.threads)
    divided = divide(texts.read(around.data, len(recipe.labels)), recipe.split, recipe.seed)
    torch.manual_seed(recipe.seed)
    tokenizer, base = _load(recipe)
    model = adapted(base, _adapters(recipe))
    train_ids = _encoded(tokenizer, divided.train, recipe.length)
    validate_ids = _encoded(tokenizer, divided.validate, recipe.length)
    labels = torch.tensor([row.label for row in divided.train])

    def loss(rows: Sequence[int]) -> Tensor:
        logits = _logits(model, tokenizer, [train_ids[row] for row in rows])
        return F.cross_entropy(logits, labels[list(rows)])

    def judge(epoch: int) -> Judged:
        return _judged(model, tokenizer, validate_ids, divided)

    plan = Plan.of(recipe, {"": recipe.rate})
    epoch, best = Loop(model, plan, [len(ids) for ids in train_ids], loss, judge).run(around)
    model.load_state_dict(dict(best.tensors), strict=False)
    held_ids = _encoded(tokenizer, divided.judged, recipe.length)
    answers = (_all_logits(model, tokenizer, held_ids) / float(best.facts["temperature"])).softmax(1).tolist()
    evaluation.write_texts(around.out, [row.row for row in divided.judged], answers)
    _export(model, tokenizer, recipe, float(best.facts["temperature"]), around.out)
    numbers = {name: float(value) for name, value in best.facts.items()}
    return Outcome({**numbers, **divided.counts, "epoch": float(epoch)})


def _load(recipe: Classifier) -> tuple[Any, Any]:
    names = dict(enumerate(recipe.labels))
    try:
        tokenizer = AutoTokenizer.from_pretrained(recipe.base, revision=recipe.revision or None, use_fast=True)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            recipe.base,
            revision=recipe.revision or None,
            use_safetensors=True,
            num_labels=len(names),
            id2label=names,
            label2id={name: number for number, name in names.items()},
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        refuse_missing_body(recipe.base, info, model.base_model_prefix)
    except (OSError, ValueError, ModelUnavailableError) as error:
        raise DataRefusedError(f"the base {recipe.base!r} cannot be had: {str(error).splitlines()[0]}") from error
    return tokenizer, model


def _adapters(recipe: Classifier) -> LoraConfig:
    """On every linear map but the head; the head is trained whole."""
    return LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=recipe.rank,
        lora_alpha=int(recipe.scale * recipe.rank),
        lora_dropout=recipe.dropout,
        target_modules="all-linear",
    )


def _encoded(tokenizer: Any, rows: Sequence[texts.Text], length: int) -> list[list[int]]:
    found: list[list[int]] = tokenizer([row.text for row in rows], truncation=True, max_length=length)["input_ids"]
    return found


def _logits(model: Any, tokenizer: Any, rows: Sequence[Sequence[int]]) -> Tensor:
    padded = tokenizer.pad({"input_ids": [list(row) for row in rows]}, return_tensors="pt")
    found: Tensor = model(input_ids=padded["input_ids"], attention_mask=padded["attention_mask"]).logits
    return found


def _all_logits(model: Any, tokenizer: Any, rows: Sequence[Sequence[int]]) -> Tensor:
    model.eval()
    with torch.no_grad():
        parts = [
            _logits(model, tokenizer, rows[start : start + _EVALUATED_AT_ONCE])
            for start in range(0, len(rows), _EVALUATED_AT_ONCE)
        ]
    return torch.cat(parts)


def _judged(model: Any, tokenizer: Any, rows: Sequence[Sequence[int]], divided: Divided) -> Judged:
    logits = _all_logits(model, tokenizer, rows)
    labels = np.array([row.label for row in divided.validate], np.int64)
    divisor = temperature([(logits, labels)])
    measures = Measures.of((logits / divisor).softmax(1).numpy(), labels)
    kept = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
    return Judged(measures.nll, kept, {"temperature": divisor, **measures.numbers})


def _export(model: Any, tokenizer: Any, recipe: Classifier, divisor: float, out: Path) -> None:
    """Merge the adapters, put the temperature into the head, and write a transformers folder."""
    merged = model.merge_and_unload()
    maps = [one for one in merged.modules() if isinstance(one, torch.nn.Linear)]
    heads = [one for one in maps if one.out_features == len(recipe.labels)]
    with torch.no_grad():
        heads[-1].weight.div_(divisor)
        if heads[-1].bias is not None:
            heads[-1].bias.div_(divisor)
    merged.save_pretrained(out, safe_serialization=True)
    tokenizer.save_pretrained(out)
    write_manifest(
        out,
        {evaluation.NAME},
        kind="sentiment",
        architecture="transformers",
        name="classifier",
        version=recipe.version,
        dtype="float32",
        labels=recipe.labels,
    )
