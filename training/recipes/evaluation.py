"""evaluation.csv: a model's answers to the rows or origins held back for the gate.

Owns the form of the file: recipes write the file, the plane reads the file. Labels and closes are not in the file: the
plane takes labels and closes from the dataset. No torch in here.
"""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

NAME: Final = "evaluation.csv"
_SUM_TOLERANCE = 1e-3
Floats = npt.NDArray[np.float64]


class EvaluationError(ValueError):
    """The file is malformed, or answers other rows than those held back; the text names the place."""


def write_texts(folder: Path, rows: Sequence[int], probabilities: Iterable[Sequence[float]]) -> None:
    """`rows` of the dataset's file, and probabilities of each label."""
    answers = [list(answer) for answer in probabilities]
    with (folder / NAME).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", *(f"p{label}" for label in range(len(answers[0])))])
        for row, answer in zip(rows, answers, strict=True):
            writer.writerow([row, *(f"{p:.6f}" for p in answer)])


def write_bands(
    folder: Path, origins: Sequence[tuple[str, int]], levels: Sequence[float], bands: Iterable[Sequence[float]]
) -> None:
    """Symbol and bars before the origin, and the quantiles of the close one horizon later, in units of the close."""
    with (folder / NAME).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["symbol", "end", *map(_column, levels)])
        for (symbol, end), band in zip(origins, bands, strict=True):
            writer.writerow([symbol, end, *(f"{edge:.9g}" for edge in band)])


def read_texts(path: Path, rows: Sequence[int], labels: int) -> Floats:
    """Probabilities [rows, labels] in the order of `rows`. Raises EvaluationError unless the file has just these."""
    names = [f"p{label}" for label in range(labels)]
    lines = _lines(path, ["row", *names])
    found = {_count(fields["row"], line): _numbers(fields, names, line) for line, fields in lines}
    kept = _in_order(found, list(rows))
    if (kept < 0).any() or (abs(kept.sum(1) - 1) > _SUM_TOLERANCE).any():
        raise EvaluationError(f"{NAME}: the answers are no probabilities")
    return kept


def read_bands(path: Path, origins: Sequence[tuple[str, int]], levels: Sequence[float]) -> Floats:
    """Quantiles [origins, levels] at the recipe's levels, which increase.

    Raises EvaluationError unless the file has just these origins, with a quantile of each level.
    """
    names = [_column(level) for level in levels]
    lines = _lines(path, ["symbol", "end", *names])
    found = {(fields["symbol"], _count(fields["end"], line)): _numbers(fields, names, line) for line, fields in lines}
    bands = _in_order(found, list(origins))
    if (np.diff(bands, axis=1) < 0).any():
        raise EvaluationError(f"{NAME}: quantiles fall from one level to the next")
    return bands


def _column(level: float) -> str:
    return f"q{level:g}"


def _lines(path: Path, needed: Sequence[str]) -> Iterable[tuple[int, dict[str, str]]]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if missing := sorted(set(needed) - set(reader.fieldnames or ())):
            raise EvaluationError(f"{NAME}: lacks the column {missing[0]!r}")
        try:
            yield from enumerate(reader, start=2)
        except (csv.Error, UnicodeDecodeError) as error:
            raise EvaluationError(f"{NAME}: cannot be read: {error}") from None


def _count(text: str, line: int) -> int:
    if not (text or "").isdecimal() or len(text) > 18:
        raise EvaluationError(f"{NAME}: line {line} names no row")
    return int(text)


def _numbers(fields: dict[str, str], names: Sequence[str], line: int) -> list[float]:
    try:
        found = [float(fields[name]) for name in names]
    except (TypeError, ValueError):
        raise EvaluationError(f"{NAME}: line {line} has no number where one is needed") from None
    if not all(map(math.isfinite, found)):
        raise EvaluationError(f"{NAME}: line {line} has a number that is not finite")
    return found


def _in_order(found: Mapping[Any, list[float]], wanted: Sequence[Any]) -> Floats:
    missing = [one for one in wanted if one not in found]
    if missing or len(found) != len(wanted):
        raise EvaluationError(
            f"{NAME}: {len(wanted)} rows were held back, {len(found)} are answered"
            + (f"; the first without an answer is {missing[0]}" if missing else "")
        )
    return np.array([found[one] for one in wanted])
