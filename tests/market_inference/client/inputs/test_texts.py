"""Texts in the forms that users have them in."""

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from market_inference.client.inputs.texts import texts
from market_inference.errors import ArgumentError

TWO = ["Profit fell 40%", "Guidance raised"]


def test_one_text() -> None:
    found = texts(TWO[0])
    assert (found.single, [one.text for one in found.items]) == (True, TWO[:1])


@pytest.mark.parametrize(
    "given",
    [TWO, tuple(TWO), np.array(TWO), pd.Series(TWO), pd.Series(TWO, dtype="string"), pl.Series(TWO), iter(TWO)],
    ids=lambda given: type(given).__name__,
)
def test_several_texts_in_order(given: object) -> None:
    found = texts(given)
    assert (found.single, [one.text for one in found.items]) == (False, TWO)


def test_a_mapping_gives_its_values_by_symbol_and_not_its_keys() -> None:
    found = texts({"AAPL": TWO[0], "MSFT": TWO[1]})
    assert [(one.source.symbol, one.text) for one in found.items] == [("AAPL", TWO[0]), ("MSFT", TWO[1])]


def test_the_index_of_a_column_is_kept() -> None:
    days = pd.date_range("2026-01-01", periods=2)
    assert texts(pd.Series(TWO, index=days)).source.index.equals(days)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["a", None], "None"),
        (["a", np.nan], "nan"),
        (pd.Series(["a", None], dtype=object), "None"),
        (pd.Series(["a", None], dtype="string"), "<NA>"),
        (pl.Series(["a", None]), "None"),
        ({"AAPL": "a", "MSFT": None}, "None"),
    ],
    ids=str,
)
def test_a_missing_text_is_an_item_that_the_service_refuses(given: Any, shown: str) -> None:
    found = texts(given).items
    assert [(one.text, one.source.missing) for one in found] == [("a", ()), ("", (shown,))]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (pd.DataFrame({"headline": TWO, "source": TWO}), r"columns headline, source: give its column of texts"),
        (pl.DataFrame({"headline": TWO}), r"frame\['headline'\]"),
        (["a", 5], r"texts\[1\]: expected text, got 5"),
        ({"AAPL": ["a", "b"]}, r"texts\['AAPL'\]: expected text, got \['a', 'b'\]"),
        (["a", "broken \ud83d"], r"texts\[1\]: character 7 is '\\ud83d', half of a surrogate pair"),
        (b"a", "expected a text, a list of texts"),
        ({"a", "b"}, "expected a text, a list of texts"),
        (5, "expected a text, a list of texts"),
        ([], "at least one text"),
        ({1: "a", "1": "b"}, "two are '1' as text"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_data_is_refused_with_the_place(given: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        texts(given)
