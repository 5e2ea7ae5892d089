"""Static types of the data that calls take.

Owns protocols and aliases for type checkers. inputs/ decides at run time, by the data's shape.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Protocol, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray


class SupportsArray(Protocol):
    """A numpy array, a pandas or polars column, a tensor."""

    def __array__(self) -> NDArray[Any]: ...


class Frame(Protocol):
    """A table of named columns, such as a pandas or polars DataFrame."""

    @property
    def columns(self) -> Iterable[Any]: ...

    def __getitem__(self, column: Any, /) -> Any: ...


class FrameColumn(Protocol):
    """A column of a pandas or polars frame. Type checkers take a pandas column for a Frame, too: overloads try it
    first.
    """

    def to_list(self) -> list[Any]: ...


class BarColumns(TypedDict, total=False):
    """Bars of one instrument, a column for each field."""

    time: Any
    open: "Column"
    high: "Column"
    low: "Column"
    close: "Column"
    volume: "Column"


OneColumn: TypeAlias = Sequence[float] | FrameColumn
Column: TypeAlias = OneColumn | SupportsArray
ManySeries: TypeAlias = Frame | Mapping[str, Column | Frame | Mapping[str, Any]] | Sequence[Column]
SeriesLike: TypeAlias = ManySeries | Column
OneBars: TypeAlias = Frame | BarColumns
ManyBars: TypeAlias = Mapping[str, Frame | Mapping[str, Column]] | Sequence[Frame | Mapping[str, Column]]
BarsLike: TypeAlias = OneBars | ManyBars | Mapping[str, Column] | Column
ManyTexts: TypeAlias = Iterable[str] | Mapping[str, str]
Beside: TypeAlias = Frame | Mapping[str, Column | Frame | Mapping[str, Column] | Sequence[Column]]
Groups: TypeAlias = bool | Mapping[str, str] | Iterable[str | None] | None
Levels: TypeAlias = float | Iterable[float] | None
Time: TypeAlias = int | str | date | datetime | np.datetime64
Times: TypeAlias = Sequence[Time] | SupportsArray
BarLike: TypeAlias = Mapping[str, Any] | float | Sequence[float] | SupportsArray
