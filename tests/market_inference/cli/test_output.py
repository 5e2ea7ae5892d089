"""Tables of commands in terminals of every width: no cell is cut."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_inference.cli.commands.output import PlainConsole, table

DATE = "2013-03-01"
NAMES = ("close", "RSI", "MACD.macd", "MACD.macdsignal", "MACD.macdhist", "BBANDS.upperband", "BBANDS.middleband")
NUMBERS = ("430.47", "28.5000", "-12.0917", "-11.2001", "-0.8916", "490.1234", "455.5500")


def printed(shown, width, *, terminal=True):
    out = PlainConsole(
        highlight=False, markup=False, width=width, force_terminal=terminal, color_system=None, file=io.StringIO()
    )
    out.print(shown)
    return out.file.getvalue()


def indicators():
    shown = table("AAPL", "bar", *NAMES, left=0, caption="the end")
    shown.add_row(DATE, *NUMBERS)
    return shown


def words(text):
    return re.split(r"[\s│┃]+", text)


def test_columns_beyond_80_are_in_a_table_below_with_the_date_again():
    text = printed(indicators(), 80)
    assert {DATE, *NAMES, *NUMBERS} <= set(words(text))
    assert max(map(len, text.splitlines())) <= 80
    assert text.count(DATE) == 2
    assert text.count("AAPL") == text.count("the end") == 1


def test_a_wide_terminal_has_one_table():
    assert printed(indicators(), 200).count(DATE) == 1


def test_without_a_terminal_lines_are_as_long_as_needed():
    text = printed(indicators(), 80, terminal=False)
    assert text.count(DATE) == 1
    assert {DATE, *NAMES, *NUMBERS} <= set(words(text))


def test_names_of_models_are_whole_and_stand_in_every_part():
    shown = table("Models", "engine", "model", "state", "default", "version", "takes", "note", left=7, keys=2)
    shown.add_row("forecast", "auto_fracast", "failed", "yes", "2+fracast-0.1", "period times", "install " * 20)
    text = printed(shown, 80)
    assert text.count("auto_fracast") == text.count("forecast") == 2
    assert max(map(len, text.splitlines())) <= 80


def test_a_sentence_in_a_column_of_numbers_is_wrapped():
    shown = table("AAPL", "value", "now")
    shown.add_row("RSI", "28.5")
    shown.add_row("warning", "the newest value is far from the others " * 4)
    text = printed(shown, 80)
    assert words(text).count("newest") == 4
    assert max(map(len, text.splitlines())) <= 80


@given(
    numbers=st.lists(st.integers(-(10**30), 10**30).map(str), min_size=1, max_size=8),
    width=st.integers(1, 120),
    terminal=st.booleans(),
    left=st.integers(0, 1),
)
def test_every_number_is_whole_at_any_width(numbers, width, terminal, left):
    shown = table("T", "bar", *("n" for _ in numbers), left=left)
    shown.add_row(DATE, *numbers)
    assert {DATE, *numbers} <= set(words(printed(shown, width, terminal=terminal)))


@pytest.mark.parametrize("width", [1, 20, 80])
def test_a_long_word_goes_on_in_the_next_line(width):
    address = "https://example.com/" + "".join(chr(97 + at % 26) for at in range(200))
    shown = table("Sentiment", "text", "score", left=1)
    shown.add_row(address, "+0.62")
    text = printed(shown, width)
    assert "…" not in text
    rows = [line.split("│")[1].strip() for line in text.splitlines() if line.startswith("│")]
    assert "".join(rows) == address
