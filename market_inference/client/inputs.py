"""What users hold, as named float64 arrays.

Owns the recognition of lists, numpy arrays, mappings and frames (pandas, polars or alike, by their shape and never by
their type: neither library is imported). Limits and values are the service's to check; here only what cannot be turned
into the contract's form is refused, with ValueError or TypeError.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from market_inference.client.arrays import Floats

BAR_COLUMNS = ("open", "high", "low", "close", "volume")

T = TypeVar("T")


class SupportsArray(Protocol):
    """A numpy array, a pandas or polars column, a tensor."""

    def __array__(self) -> NDArray[Any]: ...


class Frame(Protocol):
    """A table of named columns, such as a pandas or polars DataFrame."""

    @property
    def columns(self) -> Iterable[str]: ...

    def __getitem__(self, column: str, /) -> SupportsArray: ...


Column = Sequence[float] | SupportsArray
Bars = Mapping[str, Column] | Frame | Column


@dataclass(frozen=True, slots=True)
class Named(Generic[T]):
    """Values in order with their symbols. `single`: the user gave one, not a collection that holds one."""

    symbols: tuple[str, ...]
    values: tuple[T, ...]
    single: bool


def column(values: object, name: str = "values") -> Floats:
    """One column [n] float64 from a list, an array or a frame's column.

    Raises TypeError when it does not hold numbers and ValueError when it is not one-dimensional.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "iufbO":
        raise TypeError(f"{name}: expected numbers, got {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"{name}: expected one dimension, got shape {array.shape}")
    try:
        return array.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected numbers: {error}") from None


def series(values: object) -> Named[Floats]:
    """One series, or many: a mapping or frame of symbol -> values, a sequence of series, or rows of a 2-D array."""
    columns = _columns(values)
    if columns is not None:
        if _looks_like_bars(columns):
            raise ValueError("these are one instrument's bars: give the column to forecast, such as bars['close']")
        return _named((symbol, column(one, symbol)) for symbol, one in columns.items())
    members = _members(values)
    if members is not None:
        return _named(("", column(one, f"series[{at}]")) for at, one in enumerate(members))
    return Named(("",), (column(values),), single=True)


def panels(bars: object) -> Named[dict[str, Floats]]:
    """Bars of one instrument, or of many: a mapping of symbol -> bars, or a sequence of bars.

    The bars of one instrument are a mapping or frame with columns open, high, low, close and volume in any case (other
    columns are ignored), or the closes alone.
    """
    columns = _columns(bars)
    if columns is not None and _has_close(columns):
        return Named(("",), (_panel(columns),), single=True)
    if columns is not None:
        return _named((symbol, _panel_of(one, symbol)) for symbol, one in columns.items())
    members = _members(bars)
    if members is not None:
        return _named(("", _panel_of(one, f"bars[{at}]")) for at, one in enumerate(members))
    return Named(("",), ({"close": column(bars, "close")},), single=True)


def _columns(values: object) -> dict[str, Any] | None:
    """A mapping's or a frame's columns by name; None for anything else."""
    if isinstance(values, Mapping):
        return {str(name): one for name, one in values.items()}
    if hasattr(values, "columns"):
        frame: Any = values
        return {str(name): frame[name] for name in frame.columns}
    return None


def _has_close(columns: Iterable[str]) -> bool:
    return any(name.lower() == "close" for name in columns)


def _looks_like_bars(columns: Iterable[str]) -> bool:
    return len({name.lower() for name in columns} & set(BAR_COLUMNS)) > 1


def _members(values: Any) -> list[Any] | None:
    """The columns or bars inside a sequence, or the rows of a 2-D array; None for one column of numbers."""
    if isinstance(values, list | tuple):
        nested = bool(values) and (_columns(values[0]) is not None or np.ndim(values[0]) > 0)
    else:
        nested = np.ndim(values) > 1
    return list(values) if nested else None


def _panel(columns: Mapping[str, object], where: str = "") -> dict[str, Floats]:
    prefix = f"{where}." if where else ""
    known = {name.lower(): values for name, values in columns.items() if name.lower() in BAR_COLUMNS}
    return {name: column(values, prefix + name) for name, values in known.items()}


def _panel_of(bars: object, where: str) -> dict[str, Floats]:
    columns = _columns(bars)
    if columns is None:
        return {"close": column(bars, f"{where}.close")}
    if not _has_close(columns):
        raise ValueError(f"{where}: no column 'close'; there are {', '.join(columns) or 'none'}")
    return _panel(columns, where)


def _named(pairs: Iterable[tuple[str, T]]) -> Named[T]:
    found = tuple(pairs)
    return Named(tuple(symbol for symbol, _ in found), tuple(value for _, value in found), single=False)
