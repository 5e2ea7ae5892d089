"""Texts to classify, from the data of users.

Owns the recognition of one text; of several in a list, an array or a frame's column; and of a mapping of symbol to
text.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from market_inference.client.inputs.arguments import refuse, text
from market_inference.client.inputs.column import is_missing
from market_inference.client.inputs.items import NO_SOURCE, Given, Source, Text
from market_inference.client.inputs.table import library_of
from market_inference.errors import ArgumentError

FIELD = "texts"


def texts(given: Any) -> Given[Text]:
    """One text, or several. Raises ArgumentError."""
    if isinstance(given, str):
        return Given((Text(text(given, "text"), Source()),), single=True)
    if isinstance(given, Mapping):
        return Given.of(_one(one, f"{FIELD}[{symbol!r}]", str(symbol)) for symbol, one in given.items())
    if hasattr(given, "columns"):
        names = ", ".join(str(name) for name in given.columns)
        raise ArgumentError(
            FIELD, f"a frame with the columns {names}: give its column of texts, such as frame['headline']"
        )
    if isinstance(given, bytes | set | frozenset) or not isinstance(given, Iterable):
        raise refuse(FIELD, "a text, a list of texts, or a mapping of symbol to text", given)
    found = tuple(_one(one, f"{FIELD}[{at}]", "") for at, one in enumerate(given))
    if not found:
        raise ArgumentError(FIELD, "expected at least one text, got none")
    library = library_of(given)
    return Given(
        found,
        single=False,
        source=Source(index=getattr(given, "index", None) if library == "pandas" else None, library=library),
    )


def _one(value: Any, field: str, symbol: str) -> Text:
    if not isinstance(value, str) and is_missing(value):
        raise ArgumentError(field, f"expected text, got {value!r}: leave missing texts out")
    return Text(text(value, field), Source(symbol) if symbol else NO_SOURCE)
