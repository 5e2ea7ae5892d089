"""Numbers in any notation are read right, or refused where the notation is ambiguous."""

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_inference.client.files.error import FileError
from market_inference.client.files.numerals import Evidence, looks_like_number, numbers


def decided(*texts, dot_is_decimal=True):
    evidence = Evidence()
    evidence.add(texts, range(2, len(texts) + 2))
    return evidence.decide(dot_is_decimal=dot_is_decimal)


@pytest.mark.parametrize(
    ("text", "decimal", "value"),
    [
        ("4,096.40", ".", 4096.4),
        ("1.234,56", ",", 1234.56),
        ("1 234,56", ",", 1234.56),
        ("1\u202f234,56", ",", 1234.56),
        ("1'234.50", ".", 1234.5),
        ("12,34,567.50", ".", 1234567.5),
        ("$134.68", ".", 134.68),
        ("134.68 USD", ".", 134.68),
        ("US$ 5", ".", 5.0),
        ("-€1,5", ",", -1.5),
        ("5.16M", ".", 5.16e6),
        ("1,2 Mrd.", ",", 1.2e9),
        ("3B", ".", 3e9),
        ("0.12%", ".", 0.12),
        ("(1.5)", ".", -1.5),
        ("−3.5", ".", -3.5),
        (".5", ".", 0.5),
        ("7.", ".", 7.0),
        ("1.5E+03", ".", 1500.0),
    ],
)
def test_a_number_in_a_vendors_notation(text, decimal, value):
    assert numbers([text], [2], decimal, "close") == [pytest.approx(value, rel=1e-12)]


@pytest.mark.parametrize("text", ["", "null", "NaN", "N/A", "-", "--", ".", "#N/A N/A", " none "])
def test_a_missing_value_is_nan(text):
    assert math.isnan(numbers([text], [2], ".", "close")[0])


@pytest.mark.parametrize(
    "text", ["DGS10", "134.68x", "1,23.4", "12,34", "1,2345", "1.2.3", "2024-01-02", "inf", "0x10", "1 2"]
)
def test_other_cells_are_refused_with_row_and_column(text):
    with pytest.raises(FileError, match=r"row 9: column 'close': .* is not a number"):
        numbers(["1", text], [8, 9], ".", "close")


def test_a_cell_in_the_other_notation_is_refused_with_the_option():
    with pytest.raises(FileError, match="--decimal ,"):
        numbers(["1.5", "1,57"], [2, 3], ".", "close")


@pytest.mark.parametrize(
    ("texts", "decimal"),
    [
        (["1,234", "99,5"], ","),
        (["1,234", "1,234.5"], "."),
        (["1,234", "1,234,567"], "."),
        (["1,234", "12345"], ","),
        (["1.234", "12345"], "."),
        (["1.234", "1.234.567"], ","),
        (["1,234", "0,999"], ","),
        (["1,234", "5.16M"], "."),
        (["151.234", "151.300"], "."),
        (["15", "16"], "."),
    ],
)
def test_evidence_in_the_column_decides(texts, decimal):
    assert decided(*texts) == decimal
    assert decided(*reversed(texts)) == decimal


@pytest.mark.parametrize("texts", [["1,234", "2,345"], ["1,234", "500"], ["1,234", "2.345"]])
def test_without_evidence_the_column_is_refused(texts):
    with pytest.raises(FileError, match=r"row 2: '1,234' may be 1.234 or 1234.*--decimal"):
        decided(*texts)


@pytest.mark.parametrize("texts", [["110'165", "110'317", "111'000"], ["1’001", "999"], ["110'165", "110'16"]])
def test_an_apostrophe_before_what_may_be_32nds_is_refused(texts):
    """110'165 of Treasury futures is 110 and 16.5/32."""
    with pytest.raises(FileError, match=r"row 2: .* may have thousands or 32nds .*--decimal \."):
        decided(*texts)


@pytest.mark.parametrize("proof", ["1'324", "1'009", "1'234'567", "1'001.50", "1’001,50"])
def test_a_number_that_is_none_in_32nds_decides_for_thousands(proof):
    assert decided("1'001", proof) == ("," if "," in proof else ".")


def test_a_lone_point_is_ambiguous_where_points_may_group():
    with pytest.raises(FileError, match=r"'1.234' may be 1.234 or 1234"):
        decided("1.234", "2.345", dot_is_decimal=False)


def test_contradictory_evidence_names_both_rows():
    with pytest.raises(FileError, match=r"row 2: '1.5' has a decimal point and row 3: '1,57' a decimal comma"):
        decided("1.5", "1,57")


STYLES = {
    "english": lambda value, digits: f"{value:,.{digits}f}",
    "plain": lambda value, digits: f"{value:.{digits}f}",
    "german": lambda value, digits: f"{value:,.{digits}f}".translate(str.maketrans(",.", ".,")),
    "plain comma": lambda value, digits: f"{value:.{digits}f}".replace(".", ","),
    "french": lambda value, digits: f"{value:,.{digits}f}".replace(",", "\u202f").replace(".", ","),
    "swiss": lambda value, digits: f"{value:,.{digits}f}".replace(",", "'"),
}


@given(
    st.sampled_from(sorted(STYLES)),
    st.integers(0, 5),
    st.lists(st.floats(0.001, 1e8), min_size=1, max_size=8),
    st.booleans(),
)
def test_a_column_in_one_style_is_read_right_or_refused(style, digits, values, dot_is_decimal):
    """Never a wrong number. `dot_is_decimal` is True only for styles without points between thousands."""
    texts = [STYLES[style](value, digits) for value in values]
    try:
        decimal = decided(*texts, dot_is_decimal=dot_is_decimal and style not in {"german", "plain comma", "french"})
        found = numbers(texts, range(len(texts)), decimal, "close")
    except FileError as refusal:
        assert "--decimal" in str(refusal) or "decimal separator" in str(refusal)
        return
    assert found == [round(value, digits) for value in values]


@given(st.text(max_size=12))
def test_any_text_is_a_number_or_a_typed_error(text):
    try:
        numbers([text], [2], ".", "close")
    except FileError:
        assert not looks_like_number(text) or "," in text or "." in text


_HOSTILE_CELLS = """
from market_inference.client.files import grid, instants, names, numerals
many = 20_000
for head in ("1", "(", "1 USD", "-", "2024-01-01", "20240101", "1 jan 2024", "abc", "1,111", "1.", "10:00"):
    for filling in (" ", "\\u00a0 ", "1", "1.", ",111", "\\n"):
        cell = head + filling * many + "x"
        for look in (numerals.looks_like_number, numerals.missing, instants.looks_like_time, instants.looks_like_clock,
                     instants.looks_like_epoch, names.role):
            look(cell)
grid._is_data([str(number) for number in range(many)])
"""


def test_no_cell_takes_more_than_linear_time():
    """Searches hold the interpreter's lock: one such cell would stop a whole service."""
    subprocess.run([sys.executable, "-c", _HOSTILE_CELLS], check=True, timeout=250)
