"""evaluation.csv: a model's answers to the rows or origins held back for the gate.

Owns the form of the file: recipes write the file, the plane reads the file. Labels and closes are not in the file: the
plane takes labels and closes from the dataset. The file may hold gigabytes: the plane keeps the answers to a sample,
and whether each row is answered. No torch in here.
"""

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from training.recipes import table

NAME: Final = "evaluation.csv"
_SUM_TOLERANCE = 1e-3
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_NONE: Final[Ints] = np.zeros(0, np.int64)


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


def read_texts(lines: Iterable[str], rows: Ints, labels: int, kept: Ints) -> Floats:
    """Probabilities [kept, labels] of the rows at the places `kept`, which increase.

    Raises EvaluationError unless the file has just these rows, each once. `rows` are in any order.
    """
    names = [f"p{label}" for label in range(labels)]
    answers = _Answers(_Rows(rows), labels, kept)
    for line, (row, *numbers) in _lines(lines, ["row", *names]):
        answer = _numbers(numbers, line)
        if min(answer) < 0 or abs(sum(answer) - 1) > _SUM_TOLERANCE:
            raise EvaluationError(f"{NAME}: line {line}: the answers are no probabilities")
        answers.add(_count(row, line), answer)
    return answers.all(lambda place: str(rows[place]))


def read_bands(lines: Iterable[str], origins: Mapping[str, Ints], levels: Sequence[float], kept: Ints) -> Floats:
    """Quantiles [kept, levels] at the recipe's levels, which increase, of the origins at the places `kept`.

    `origins` are the ends of each symbol, which increase; the places are counted over all symbols in their order.
    Raises EvaluationError unless the file has just these origins, each once, with a quantile of each level.
    """
    symbols = _Origins(origins)
    answers = _Answers(symbols, len(levels), kept)
    for line, (symbol, end, *numbers) in _lines(lines, ["symbol", "end", *map(_column, levels)]):
        answer = _numbers(numbers, line)
        if any(low > high for low, high in pairwise(answer)):
            raise EvaluationError(f"{NAME}: line {line}: quantiles fall from one level to the next")
        answers.add((symbol, _count(end, line)), answer)
    return answers.all(symbols.name)


class _Rows:
    """The places of rows."""

    def __init__(self, rows: Ints) -> None:
        self._order = np.argsort(rows)
        self._rows = rows[self._order]
        self.count = len(rows)

    def place(self, row: int) -> int:
        """-1 for a row that was not held back."""
        found = int(self._rows.searchsorted(row))
        return int(self._order[found]) if found < self.count and self._rows[found] == row else -1


class _Origins:
    """The places of origins."""

    def __init__(self, origins: Mapping[str, Ints]) -> None:
        self._ends = origins
        starts = np.cumsum([0, *map(len, origins.values())]).tolist()
        self._starts = dict(zip(origins, starts, strict=False))
        self.count: int = starts[-1]

    def place(self, origin: tuple[str, int]) -> int:
        """-1 for an origin that was not held back."""
        symbol, end = origin
        ends = self._ends.get(symbol, _NONE)
        found = int(ends.searchsorted(end))
        return self._starts[symbol] + found if found < len(ends) and ends[found] == end else -1

    def name(self, place: int) -> str:
        symbol = [one for one, start in self._starts.items() if start <= place and len(self._ends[one])][-1]
        return f"{symbol} {self._ends[symbol][place - self._starts[symbol]]}"


class _Answers:
    """The answers that are kept, and one byte for each of the others."""

    def __init__(self, known: Any, width: int, kept: Ints) -> None:
        self._known = known
        self._kept = kept
        self._seen = np.zeros(known.count, np.bool_)
        self._answers = np.zeros((len(kept), width))
        self._others = 0

    def add(self, key: Any, answer: list[float]) -> None:
        """Raises EvaluationError for a second answer."""
        place = self._known.place(key)
        if place < 0:
            self._others += 1
            return
        if self._seen[place]:
            raise EvaluationError(f"{NAME}: {key} is answered twice")
        self._seen[place] = True
        at = int(self._kept.searchsorted(place))
        if at < len(self._kept) and self._kept[at] == place:
            self._answers[at] = answer

    def all(self, name: Callable[[int], str]) -> Floats:
        """The answers in the order of the places. Raises EvaluationError unless each row has an answer."""
        seen = int(self._seen.sum())
        if self._others or seen < self._known.count:
            first = f"; the first without an answer is {name(int(self._seen.argmin()))}" * (seen < self._known.count)
            raise EvaluationError(
                f"{NAME}: {self._known.count} rows were held back, {seen + self._others} are answered{first}"
            )
        return self._answers


def _column(level: float) -> str:
    return f"q{level:g}"


def _lines(lines: Iterable[str], needed: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    found = table.records(lines)
    try:
        header = next(found, [])
        if missing := sorted(set(needed) - set(header)):
            raise EvaluationError(f"{NAME}: lacks the column {missing[0]!r}")
        places = [header.index(name) for name in needed]
        for line, fields in enumerate(found, start=2):
            if len(fields) < len(header):
                fields += [""] * (len(header) - len(fields))
            yield line, [fields[place] for place in places]
    except (csv.Error, UnicodeDecodeError) as error:
        raise EvaluationError(f"{NAME}: cannot be read: {error}") from None


def _count(text: str, line: int) -> int:
    if not text.isdecimal() or len(text) > 18:
        raise EvaluationError(f"{NAME}: line {line} names no row")
    return int(text)


def _numbers(fields: Sequence[str], line: int) -> list[float]:
    try:
        found = [float(one) for one in fields]
    except ValueError:
        raise EvaluationError(f"{NAME}: line {line} has no number where one is needed") from None
    if not all(map(math.isfinite, found)):
        raise EvaluationError(f"{NAME}: line {line} has a number that is not finite")
    return found
