"""Texts to classify, from the data of users.

Owns the recognition of one text; of several in a list, an array or a frame's column; and of a mapping of symbol to
text.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from market_inference.client.inputs.arguments import refuse, shown, text
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


def towards(given: Given[Text], about: Any) -> Given[Text]:
    """The texts with their companies. Raises ArgumentError.

    A company for each text, one for all, or several for one text, whose answers then have the companies as symbols.
    """
    if about is None:
        return given
    if isinstance(about, str):
        company = _company(about, "about")
        return replace(given, items=tuple(replace(one, about=company) for one in given.items))
    if isinstance(about, Mapping | bytes | set | frozenset) or not isinstance(about, Iterable):
        raise refuse("about", "a company's name, or a list of names", about)
    names = [_company(name, f"about[{at}]") for at, name in enumerate(about)]
    if given.single:
        if not names or len(set(names)) < len(names):
            raise refuse("about", "different names, at least one", names)
        (one,) = given.items
        return Given.of(replace(one, about=name, source=replace(one.source, symbol=name)) for name in names)
    if len(names) != len(given.items):
        raise ArgumentError("about", f"there are {len(given.items)} texts and {len(names)} names")
    return replace(given, items=tuple(replace(one, about=name) for one, name in zip(given.items, names, strict=True)))


def _company(value: Any, field: str) -> str:
    name = text(value, field).strip()
    if not name:
        raise refuse(field, "a company's name", value)
    return name


def _one(value: Any, field: str, symbol: str) -> Text:
    if not isinstance(value, str) and is_missing(value):
        # The service refuses a blank text alone, and answers the others.
        return Text("", Source(symbol, missing=(shown(value),)))
    return Text(text(value, field), Source(symbol) if symbol else NO_SOURCE)
