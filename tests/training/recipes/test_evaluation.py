"""evaluation.csv: written by recipes, read by the plane, and refused when it is not what was held back."""

import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from training.recipes import evaluation, table
from training.recipes.evaluation import NAME, EvaluationError, write_bands, write_texts

HEADER = "row,p0,p1,p2\n"


def lines(folder: Path) -> list[str]:
    with (folder / NAME).open(encoding="utf-8", newline="") as file:
        return list(file)


def read_texts(folder: Path, rows: Sequence[int], kept: Sequence[int] | None = None) -> np.ndarray:
    kept = range(len(rows)) if kept is None else kept
    return evaluation.read_texts(lines(folder), np.array(rows), 3, np.array(kept))


def read_bands(
    folder: Path, origins: Mapping[str, Sequence[int]], levels: Sequence[float], kept: Sequence[int] | None = None
) -> np.ndarray:
    ends = {symbol: np.array(found) for symbol, found in origins.items()}
    kept = range(sum(map(len, ends.values()))) if kept is None else kept
    return evaluation.read_bands(lines(folder), ends, levels, np.array(kept))


def test_texts_survive_writing_and_reading_in_the_planes_order(tmp_path: Path) -> None:
    write_texts(tmp_path, [5, 2], [[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(read_texts(tmp_path, [2, 5]), [[1, 0, 0], [0.2, 0.3, 0.5]])


def test_bands_survive_writing_and_reading(tmp_path: Path) -> None:
    write_bands(tmp_path, [("A", 7), ("B", 7)], [0.1, 0.9], [[1.5, 2.5], [1e-7, 1e9]])
    bands = read_bands(tmp_path, {"B": [7], "A": [7]}, (0.1, 0.9))
    np.testing.assert_allclose(bands, [[1e-7, 1e9], [1.5, 2.5]])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "lacks the column"),
        ("row,p0,p1\n2,0.5,0.5\n", "lacks the column 'p2'"),
        (HEADER + "2,1,0,0\n", "2 rows were held back, 1 are answered; the first without an answer is 3"),
        (HEADER + "2,1,0,0\n3,1,0,0\n4,1,0,0\n", "2 rows were held back, 3 are answered"),
        (HEADER + "2,1,0,0\n3,nan,0,0\n", "line 3 has a number that is not finite"),
        (HEADER + "2,1,0,0\n3,2,0,-1\n", "no probabilities"),
        (HEADER + "2,1,0,0\n3,1,1,1\n", "no probabilities"),
        (HEADER + "2,1,0,0\n3,x,1,1\n", "line 3 has no number"),
        (HEADER + "2,1,0,0\nx,1,0,0\n", "line 3 names no row"),
        (HEADER + "2,1,0,0\n3\n", "line 3 has no number"),
        (HEADER + "2,1,0,0\n2,1,0,0\n", "2 is answered twice"),
        (HEADER + '"\n",' * table.MOST_ROW_CHARACTERS, f"a row of more than {table.MOST_ROW_CHARACTERS} characters"),
    ],
)
def test_a_pod_that_answers_other_rows_or_no_probabilities_is_refused(tmp_path: Path, content: str, why: str) -> None:
    (tmp_path / NAME).write_text(content)
    with pytest.raises(EvaluationError, match=why):
        read_texts(tmp_path, [2, 3])


def test_a_sample_of_the_answers_is_kept_and_every_row_is_needed(tmp_path: Path) -> None:
    write_texts(tmp_path, [9, 5, 2], [[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    np.testing.assert_allclose(read_texts(tmp_path, [2, 5, 9], [0, 2]), [[0, 1, 0], [0.2, 0.3, 0.5]])
    with pytest.raises(EvaluationError, match=r"4 rows were held back, 3 are answered; the first .* is 7"):
        read_texts(tmp_path, [2, 5, 7, 9], [0])
    write_bands(tmp_path, [("A", 7), ("B", 3), ("B", 7)], [0.5], [[1.5], [2.5], [3.5]])
    np.testing.assert_allclose(read_bands(tmp_path, {"": [], "A": [7], "B": [3, 7]}, (0.5,), [0, 2]), [[1.5], [3.5]])
    with pytest.raises(EvaluationError, match="the first without an answer is B 5"):
        read_bands(tmp_path, {"A": [7], "B": [3, 5, 7]}, (0.5,), [0])


def test_the_memory_of_a_file_follows_the_sample() -> None:
    """Python's lists of the answers took 300 bytes of each row."""
    count = 20_000

    def written() -> Iterator[str]:
        yield HEADER
        yield from (f"{row},0.2,0.3,0.5\n" for row in range(count))

    rows = np.arange(count)
    tracemalloc.start()
    found = evaluation.read_texts(written(), rows, 3, rows[::100])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.shape == (200, 3)
    assert most < 30 * count


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("symbol,end\nA,7\n", "lacks the column 'q0.1'"),
        ("symbol,end,q0.5\nA,7,1\n", "lacks the column 'q0.1'"),
        ("symbol,end,q0.1,q0.89\nA,7,1,2\n", "lacks the column 'q0.9'"),
        ("symbol,end,q0.9,q0.1\nA,7,1,2\n", "quantiles fall"),
        ("symbol,end,q0.1,q0.9\nA,7,2,1\n", "quantiles fall"),
        ("symbol,end,q0.1,q0.9\nA,8,1,2\n", "the first without an answer is"),
    ],
)
def test_bands_that_are_none_are_refused(tmp_path: Path, content: str, why: str) -> None:
    (tmp_path / NAME).write_text(content)
    with pytest.raises(EvaluationError, match=why):
        read_bands(tmp_path, {"A": [7]}, (0.1, 0.9))
