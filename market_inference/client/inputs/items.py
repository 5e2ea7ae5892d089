"""The items of a call as arrays, each with its place in the caller's data.

Items are made for each call, and are not frozen: a frozen dataclass takes three times as long to make.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from market_inference.client.arrays import Floats
from market_inference.errors import ArgumentError

T = TypeVar("T")
Instants: TypeAlias = NDArray[np.int64]
"""Nanoseconds since the epoch [n]."""


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """The place of an item's rows in the caller's data, kept in the item's answer.

    `index`: the labels of the sent rows, oldest first: a pandas index, a polars column or an array, None
    for data without labels. `library`: "pandas" or "polars" for data of these libraries, else "".
    `notes`: changes on the way, such as "the dates descend: reversed to oldest first". `usual`: the notes on
    what is normal in such data, such as a listing later than the first row; these raise no InputWarning. `missing`:
    labels of rows without a value, or the value in the place of a text, refused by the service. `time_name`,
    `symbol_name`: the columns of times and of symbols, "" for none.
    """

    symbol: str = ""
    index: Any = None
    library: str = ""
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    time_name: str = ""
    symbol_name: str = ""
    usual: tuple[str, ...] = ()

    def named(self, symbol: str) -> "Source":
        """The same with another symbol."""
        if symbol == self.symbol:
            return self
        return Source(symbol) if self is NO_SOURCE else replace(self, symbol=symbol)

    def noting(self, *notes: str, usual: bool = False, **changes: Any) -> "Source":
        """The same with further notes, and other changes; `usual` notes describe what is normal in such data."""
        if usual:
            changes["usual"] = (*self.usual, *notes)
        return replace(self, notes=(*self.notes, *notes), **changes)


NO_SOURCE = Source()
"""The source of data without symbol and labels."""


@dataclass(slots=True, eq=False)
class Series:
    """`values` [n] float64, oldest first.

    `past` [covariates, n] and `future` [covariates, horizon], NaN for no value, and `times` [n]; None without.
    """

    values: Floats
    source: Source
    past: Floats | None = None
    future: Floats | None = None
    times: Instants | None = None


@dataclass(slots=True, eq=False)
class Panel:
    """Bars of one instrument, oldest first: `columns` by name, each [n] float64; `times` [n] or None."""

    columns: dict[str, Floats]
    times: Instants | None
    source: Source


@dataclass(slots=True, eq=False)
class Text:
    """One text; `about`: the company for which the sentiment is asked, "" for the whole text."""

    text: str
    source: Source
    about: str = ""


@dataclass  # slots do not go with Given[T](...)
class Given(Generic[T]):
    """Items in order.

    `single`: the caller gave one item, not a collection of one. `source`: the labels of the items themselves, for
    items in rows, such as texts in a frame's column. `notes`: doubts about the data as a whole.
    """

    items: tuple[T, ...]
    single: bool
    source: Source = Source()  # frozen
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, items: Iterable[T], notes: tuple[str, ...] = ()) -> "Given[T]":
        """A collection of items. Raises ArgumentError for two of one symbol, such as those of the keys 1 and "1"."""
        found = tuple(items)
        refuse_twins([symbol for one in found if (symbol := one.source.symbol)])  # type: ignore[attr-defined]
        return cls(found, single=False, notes=notes)


def refuse_twins(symbols: Collection[str]) -> None:
    """Raise ArgumentError for two equal symbols: answers by symbol would be those of one of the two."""
    if len(set(symbols)) < len(symbols):
        twice = next(symbol for symbol, count in Counter(symbols).items() if count > 1)
        raise ArgumentError("symbols", f"two are {twice!r} as text: leave one out or rename it")
