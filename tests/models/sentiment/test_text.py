"""Cleaning and windows: no token is lost, and no window exceeds the limit."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from models.sentiment.minilm import tokenizer
from models.sentiment.text import Windows, clean

WORDS = st.lists(st.sampled_from(["profit", "rose", "13.1", "EUR", "fell.", "why?", "unbelievably", "»no«", "x" * 90]))


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    whole = tokenizer()
    whole.no_truncation()
    whole.no_padding()
    return whole


@cache
def windows_of(length: int) -> Windows:
    return Windows(tokenizer(), length)


def test_addresses_and_spare_white_space_are_removed() -> None:
    assert clean("  $AB  up\n5% https://t.co/abc now www.example.com/x ") == "$AB up 5% now"


def test_a_text_of_addresses_only_is_kept() -> None:
    assert clean(" https://t.co/abc ") == "https://t.co/abc"


@given(parts=WORDS, length=st.sampled_from([3, 4, 7, 16, 40]))
def test_windows_hold_every_token_once_and_in_order(words: Tokenizer, parts: list[str], length: int) -> None:
    text = " ".join(parts)
    (windows,) = windows_of(length).of([text])
    assert all(len(window) <= length for window in windows)
    inner = np.concatenate([window[1:-1] for window in windows])
    whole = words.encode(text, add_special_tokens=False).ids
    np.testing.assert_array_equal(inner, whole)


def test_a_long_text_is_cut_after_a_sentence_and_not_inside_a_number(words: Tokenizer) -> None:
    text = "Sales were good this year. Costs of 13.1 million euros went down a little again"
    first, second, *_ = (words.decode(list(window)) for window in windows_of(12).of([text])[0])
    assert first == "sales were good this year."
    assert second.startswith("costs of 13. 1 million euros")


def test_without_a_sentence_end_a_long_text_is_cut_between_words(words: Tokenizer) -> None:
    pieces = words.encode("unforgettably", add_special_tokens=False).ids
    assert len(pieces) == 5
    (windows,) = windows_of(16).of(["unforgettably " * 6])
    assert [len(window) - 2 for window in windows] == [10, 10, 10]


def test_texts_do_not_change_each_other() -> None:
    windows = windows_of(16)
    texts = ["Profit rose.", "A " * 40, ""]
    together = windows.of(texts)
    for text, expected in zip(texts, together, strict=True):
        (alone,) = windows.of([text])
        assert [list(window) for window in alone] == [list(window) for window in expected]


def test_the_given_tokeniser_is_not_changed(words: Tokenizer) -> None:
    words.enable_truncation(5)
    Windows(words, 16)
    assert len(words.encode("one two three four five six seven").ids) == 5
    words.no_truncation()


def test_a_window_needs_room_for_a_token(words: Tokenizer) -> None:
    with pytest.raises(ValueError, match="no room"):
        Windows(words, 2)
