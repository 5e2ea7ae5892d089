"""Checks of labelled texts: each finding by its row and its reason."""

import itertools
import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.plane.checks.cells import CELLS, content, must_be_storable
from training.plane.checks import leakage, rows, texts
from training.plane.checks.leakage import LeakProbe
from training.plane.checks.report import Report
from training.plane.checks.rows import UnreadableError
from training.recipes.table import MOST_ROW_CHARACTERS

WORDS = [f"word{n}" for n in range(3000)]


def honest(rows: int, seed: int = 1) -> list[list[str]]:
    """Texts whose words say nothing of the label."""
    chance = random.Random(seed)
    return [[" ".join(chance.choices(WORDS, k=12)), str(n % 3)] for n in range(rows)]


def check(text: str | bytes) -> Report:
    report = Report()
    content = text if isinstance(text, bytes) else text.encode()
    try:
        texts.check((content[at : at + 777] for at in range(0, len(content), 777)), report, lambda: None)
    except UnreadableError:
        assert report.errors
    return report


def table(rows: list[list[str]], header: str = "text,label") -> str:
    return "\n".join([header, *(",".join(row) for row in rows)]) + "\n"


def test_good_rows_are_counted_by_label_and_month() -> None:
    rows = [[*row, f"2026-0{1 + n % 3}-10"] for n, row in enumerate(honest(60))]
    report = check(table(rows, "text,label,time"))
    assert not report.errors
    assert report.rows == 60
    assert report.facts["labels"] == {"0": 20, "1": 20, "2": 20}
    assert report.facts["labels_by_month"]["2026-01"] == {"0": 20}
    assert (report.first_time[:10], report.last_time[:10]) == ("2026-01-10", "2026-03-10")


def test_the_newest_months_alone_are_counted_in_any_order() -> None:
    months = [f"{1900 + n // 12}-{1 + n % 12:02d}" for n in range(1200)]
    random.Random(1).shuffle(months)
    rows = [[*row, f"{month}-10"] for row, month in zip(honest(2400), 2 * months, strict=True)]
    counted = check(table(rows, "text,label,time")).facts["labels_by_month"]
    assert list(counted) == sorted(months)[-texts.MOST_MONTHS :]
    assert {sum(counts.values()) for counts in counted.values()} == {2}


def test_more_rows_than_the_gate_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MOST_TEXTS", 40)
    assert not check(table(honest(40))).errors
    assert check(table(honest(41))).reason == "row 42: at most 40 rows"


def test_a_row_of_many_quoted_lines_is_refused_in_little_memory() -> None:
    """Each line is short and each field is small: the fields of one row took 60 bytes for 5 of the file."""
    tracemalloc.start()
    report = check("text,label\n" + '"\n",' * 2_000_000)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert report.reason == f"not CSV: a row of more than {MOST_ROW_CHARACTERS} characters"
    assert most < 80e6  # of these 20 MB are the content of this test


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (["", "1"], "row 32: the text is blank"),
        (["   ", "1"], "row 32: the text is blank"),
        (["x" * 10_001, "1"], "row 32: at most 10000 characters, got 10001"),
        (["fine", "positive"], "row 32: the label must be a whole number from 0 to 999"),
        (["fine", "-1"], "row 32: the label must be a whole number from 0 to 999"),
        (["fine", "1000"], "row 32: the label must be a whole number from 0 to 999"),
        (["fine", "9" * 5000], "row 32: the label must be a whole number from 0 to 999"),
        (["fine", "0" * 5000 + "7"], "row 32: the label must be a whole number from 0 to 999"),
        (["fine", "\u0663"], "row 32: the label must be a whole number from 0 to 999"),
        (["fine"], "row 32: 1 fields where the header has 2"),
        (["a", "b", "1"], "row 32: 3 fields where the header has 2"),
    ],
)
def test_a_bad_row_is_named(row: list[str], reason: str) -> None:
    assert check(table([*honest(30), row, *honest(30, 2)])).reason == reason


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (["fine", "1", "yesterday", "2026-01-01"], "time must be ISO 8601"),
        (["fine", "1", "2026-01-02", "2026-01-01"], "label_time is before time"),
        (["fine", "1", "2026-01-02T10:00:00+02:00", "2026-01-02T07:59:59Z"], "label_time is before time"),
    ],
)
def test_times_are_checked(row: list[str], reason: str) -> None:
    good = [[*one, "2026-01-01", "2026-01-02"] for one in honest(30)]
    assert reason in check(table([*good, row], "text,label,time,label_time")).reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"text,text\n", "the header names 'text' twice"),
        (b"headline,label\nx,1\n", "no column 'text'"),
        (b"te\0xt,label\nx,1\n", "no column 'text'; there are: te\0xt, label"),
        (b"text,label\n\xff\xfe,1\n", "not UTF-8"),
        (b'text,label\n"open,1\n', "not CSV"),
        (b"text,label\n" + b"x" * 1_100_000, "a line of more than"),
        (("," * 300).encode(), "at most 200 columns"),
        (table(honest(10)).encode(), "at least 20 rows, got 10"),
        (table([[text, "1"] for text, _ in honest(30)]).encode(), "every row has the same label"),
    ],
)
def test_a_file_that_is_no_dataset(content: bytes, reason: str) -> None:
    assert reason in check(content).reason


def test_a_label_may_begin_with_zeros() -> None:
    report = check(table([*honest(30), ["fine", "0" * 99 + "7"]]))
    assert (report.reason, report.facts["labels"]["7"]) == ("", 1)


@given(st.lists(CELLS, min_size=2, max_size=5), st.lists(st.lists(CELLS, min_size=4, max_size=4), max_size=4))
def test_any_cell_is_good_or_a_finding(header: list[str], odd: list[list[str]]) -> None:
    names = ["text", "label", "time", "label_time"]
    good = [[*row, "2026-01-01", "2026-01-02"] for row in honest(30)]
    must_be_storable(check(content([names, *good, *odd])))
    must_be_storable(check(content([header, *odd])))


def test_lines_end_only_where_they_end() -> None:
    rows = honest(30)
    rows[3][0] = '"two\nlines, and U+2028 \u2028 and \x0b"'
    report = check("\ufeff" + table(rows).replace("\n", "\r\n"))
    assert not report.errors
    assert report.rows == 30


def test_one_bad_row_in_many_is_found_and_named() -> None:
    rows = ["good news,1", "bad news,0"] * 15_000
    rows[23_456] = "lost,?"
    report = check("text,label\n" + "\n".join(rows))
    assert report.reason.startswith("row 23458: the label must be")
    assert report.errors == {"label": 1}


def test_duplicates_and_texts_with_two_labels_are_named() -> None:
    rows = honest(100)
    rows[50] = list(rows[10])
    rows[60] = [rows[20][0].upper() + "!", str((int(rows[20][1]) + 1) % 3)]
    report = check(table(rows))
    assert not report.errors
    assert report.places["duplicate"] == [{"row": 52, "why": "the text of row 12"}]
    assert report.places["two_labels"][0]["row"] == 62
    many = [[text, str((int(label) + 1) % 3)] for text, label in honest(10)]
    assert "have two labels" in check(table([*honest(90), *many])).reason


def test_near_duplicates_across_the_split_are_named() -> None:
    rows = honest(500)
    rows[450] = [rows[8][0].replace(rows[8][0].split()[5], "other", 1), "1"]
    report = check(table(rows))
    assert [(one["row"], one["why"]) for one in report.places["near_duplicate_across_split"]] == [
        (452, "nearly the text of row 10")
    ]


def test_honest_texts_have_no_warnings() -> None:
    assert not check(table(honest(3000))).warnings


@pytest.mark.parametrize("leak", ["sentiment=POSITIVE {label}", "{label}"])
def test_a_label_in_the_text_is_found(leak: str) -> None:
    names = ["down", "flat", "up"]
    rows = [[f"{text} {leak.format(label='lbl' + names[int(label)])}", label] for text, label in honest(600)]
    report = check(table(rows))
    [found] = report.places["leak"]
    assert found["word"] in {f"lbl{name}" for name in names}


def test_rows_of_many_words_take_little_memory() -> None:
    """Two gigabytes for the first 20,000 rows of a file of 200 MB, as lists of numbers."""
    words = [f"{number:03x}" for number in range(2_400)]
    content = table([[f"{' '.join(words)} {row}", str(row % 2)] for row in range(200)])
    tracemalloc.start()
    try:
        assert check(content).rows == 200
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000


def test_a_thousand_labels_take_little_memory_and_a_label_in_the_text_is_found() -> None:
    """400 MB, as numbers of eight bytes for each word and label, and several copies of these."""
    probe, report = LeakProbe(), Report()
    for row in range(5000):
        probe.add([*WORDS[row % 37 : row % 37 + 12], f"lbl{row % 1000}"], row % 1000)
    tracemalloc.start()
    try:
        probe.finish(report)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert report.places["leak"][0]["word"].startswith("lbl")
    assert peak < 60_000_000


def test_long_texts_with_many_labels_are_answered_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first 100 of 200 rows, whose labels the texts tell; the others have labels by chance."""
    monkeypatch.setattr(leakage, "_MOST_WORK", 100 * 2 * 300)
    probe, report = LeakProbe(), Report()
    for row in range(1000):
        told = row % 2 if row < 900 else row // 2 % 2
        probe.add([f"word{told}x{n}" for n in range(300)], row % 2)
    probe.finish(report)
    assert report.facts["words_alone_accuracy"] == 1.0


def test_long_words_that_are_all_different_take_little_memory() -> None:
    """Some kilobytes for each word, as texts of a hundred thousand words that were kept."""
    tracemalloc.start()
    try:
        report = Report()
        found = (f"{' '.join(f'{row * 5 + n:05d}' + 'x' * 1990 for n in range(5))},{row % 2}\n" for row in range(1000))
        texts.check((row.encode() for row in itertools.chain(["text,label\n"], found)), report, lambda: None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert report.rows == 1000
    assert peak < 5_000_000
