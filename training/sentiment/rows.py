"""Labelled texts: reading from CSV, encoding, and grouping into batches of similar length."""

import csv
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from models.sentiment import LABELS
from models.sentiment.company import MASK, masked, mentions
from models.sentiment.encoder import Packed
from models.sentiment.text import clean

UNLABELLED = -100
"""The label of a row that only a teacher's answers teach; torch's cross entropy leaves such rows out."""


@dataclass(frozen=True)
class Row:
    """A text, a label (0 negative, 1 neutral, 2 positive), and the kind of text where the file has a column `kind`."""

    text: str
    label: int
    kind: str = ""


@dataclass(frozen=True)
class Encoded:
    """A row: int64 token ids [n], the label or UNLABELLED, a teacher's float32 logits [labels] (NaN without one)."""

    ids: Tensor
    label: int
    taught: Tensor = field(default_factory=lambda: torch.full((len(LABELS),), torch.nan))


def read(paths: Sequence[Path]) -> list[Row]:
    """The rows of CSV files with columns `text` and `label`, without duplicates. Raises ValueError with the bad row.

    A file with a column `entity` labels the text towards that company: the company's mentions become the mask token.
    A row whose text does not mention the company is left out.
    """
    return _distinct(fields for path in paths for fields in _checked(path))


def read_contrasts(paths: Sequence[Path]) -> list[Row]:
    """As read(), of files with a column `entity`: only texts whose companies have different labels."""
    found = [fields for path in paths for fields in _checked(path)]
    labels: dict[str, set[str]] = {}
    for fields in found:
        labels.setdefault(fields["text"], set()).add(fields["label"])
    return _distinct(fields for fields in found if len(labels[fields["text"]]) > 1)


def read_swapped(paths: Sequence[Path], seed: int) -> list[Row]:
    """Rows of files with a column `entity`, with other names for the companies, so that no name stands for a label.

    A text whose companies have one label is a row of this label, with every company's name replaced by a name drawn
    from the files. A text of several labels is a row for each company: the company masked, the others' names replaced.
    """
    chance = random.Random(seed)  # noqa: S311 - drawing names needs no secrecy
    texts: dict[str, dict[str, str]] = {}
    for path in paths:
        for fields in _checked(path):
            texts.setdefault(fields["text"], {})[fields["entity"]] = fields["label"]
    names = sorted({company for labels in texts.values() for company in labels})
    rows = []
    for text, labels in texts.items():
        others = [name for name in names if name not in labels] or names
        if len(set(labels.values())) == 1:
            rows.append(Row(_renamed(text, labels, others, chance), int(next(iter(labels.values())))))
            continue
        for company, label in labels.items():
            renamed = _renamed(text, labels.keys() - {company}, others, chance)
            if mentions(renamed, company):
                rows.append(Row(masked(renamed, company), int(label)))
    return rows


def _renamed(text: str, companies: Iterable[str], names: Sequence[str], chance: random.Random) -> str:
    """The text with a drawn name for each company; longer names first, since they may hold shorter ones."""
    drawn = {}
    for number, company in enumerate(sorted(companies, key=lambda name: (-len(name), name))):
        drawn[f"{{{number}}}"] = chance.choice(names)
        text = masked(text, company).replace(MASK, f"{{{number}}}")
    for place, name in drawn.items():
        text = text.replace(place, name)
    return text


def _distinct(found: Iterable[dict[str, str]]) -> list[Row]:
    rows: dict[str, Row] = {}
    for fields in found:
        text, company = fields["text"], fields.get("entity")
        if company and not mentions(text, company):
            continue
        text = masked(text, company) if company else text
        rows.setdefault(clean(text), Row(text, int(fields["label"]), fields.get("kind") or ""))
    return list(rows.values())


def _checked(path: Path) -> Iterator[dict[str, str]]:
    """The fields of each row. Raises ValueError with the bad row."""
    with path.open(encoding="utf-8", newline="") as lines:
        for number, fields in enumerate(csv.DictReader(lines), start=2):
            if not (fields.get("text") or "").strip() or fields.get("label") not in ("0", "1", "2"):
                raise ValueError(f"{path.name}, row {number}: needs a text and a label 0, 1 or 2")
            yield fields


def read_taught(path: Path) -> dict[str, Tensor]:
    """A teacher's float32 logits [labels] by cleaned text, from the file that teacher.py writes."""
    with np.load(path) as arrays:
        logits = torch.from_numpy(arrays["logits"].astype(np.float32))
        return dict(zip(arrays["texts"].tolist(), logits, strict=True))


def encode(
    rows: Sequence[Row], tokenizer: Tokenizer, length: int, taught: Mapping[str, Tensor] | None = None
) -> list[Encoded]:
    """Encode rows to at most `length` token ids, special tokens included; with the teacher's logits where given."""
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    texts = [clean(row.text) for row in rows]
    unknown, taught = torch.full((len(LABELS),), torch.nan), taught or {}
    return [
        Encoded(torch.tensor(encoding.ids), row.label, taught.get(text, unknown))
        for encoding, text, row in zip(tokenizer.encode_batch(texts), texts, rows, strict=True)
    ]


def batches(rows: Sequence[Encoded], size: int, chance: random.Random) -> Iterator[tuple[Packed, Tensor, Tensor]]:
    """Yield all rows in batches of `size` rows of similar length, in random order.

    A batch is the packed ids, the int64 labels [rows] and the teacher's logits [rows, labels].
    """
    order = sorted(range(len(rows)), key=lambda index: (len(rows[index].ids), chance.random()))
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    chance.shuffle(groups)
    for group in groups:
        labels = torch.tensor([rows[index].label for index in group])
        yield Packed.of([rows[index].ids for index in group]), labels, torch.stack([rows[i].taught for i in group])
