"""Labelled texts: reading from CSV, encoding, and grouping into batches of similar length."""

import csv
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from models.sentiment.encoder import Packed
from models.sentiment.text import clean


@dataclass(frozen=True)
class Row:
    """A text and a label: 0 negative, 1 neutral, 2 positive."""

    text: str
    label: int


@dataclass(frozen=True)
class Encoded:
    """An encoded row: int64 token ids [n] and the label."""

    ids: Tensor
    label: int


def read(paths: Sequence[Path]) -> list[Row]:
    """The rows of CSV files with columns `text` and `label`, without duplicates. Raises ValueError with the bad row."""
    rows: dict[str, Row] = {}
    for path in paths:
        with path.open(encoding="utf-8", newline="") as lines:
            for number, fields in enumerate(csv.DictReader(lines), start=2):
                if not (fields.get("text") or "").strip() or fields.get("label") not in ("0", "1", "2"):
                    raise ValueError(f"{path.name}, row {number}: needs a text and a label 0, 1 or 2")
                rows.setdefault(clean(fields["text"]), Row(fields["text"], int(fields["label"])))
    return list(rows.values())


def encode(rows: Sequence[Row], tokenizer: Tokenizer, length: int) -> list[Encoded]:
    """Encode rows to at most `length` token ids, special tokens included."""
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    encodings = tokenizer.encode_batch([clean(row.text) for row in rows])
    return [Encoded(torch.tensor(e.ids), row.label) for e, row in zip(encodings, rows, strict=True)]


def batches(rows: Sequence[Encoded], size: int, chance: random.Random) -> Iterator[tuple[Packed, Tensor]]:
    """Yield all rows in batches of `size` rows of similar length, in random order: packed ids and int64 labels."""
    order = sorted(range(len(rows)), key=lambda index: (len(rows[index].ids), chance.random()))
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    chance.shuffle(groups)
    for group in groups:
        yield Packed.of([rows[index].ids for index in group]), torch.tensor([rows[index].label for index in group])
