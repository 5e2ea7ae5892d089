"""Answers as frames.

Owns the columns of each kind of answer. A frame of several items is long: a row for each item and step, bar or text,
under the column names of the caller's own long frame, else `symbol` and `time`. An item that failed keeps one row, with
missing values and the error's text in the column `error`, which only such frames have.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from market_inference.client.frames import dates, library
from market_inference.client.inputs.items import Source
from market_inference.errors import MarketInferenceError

if TYPE_CHECKING:
    from market_inference.client.answers import Answers, Indicators, Sentiment
    from market_inference.client.forecast import Forecast

_SENTIMENT = ("label", "score", "negative", "neutral", "positive", "chunks")


def forecast(found: "Forecast", calendar: str, chosen: str) -> Any:
    """Rows of a forecast: `point`, `q0.1` and so on, by date, or by `step` where the series has no regular dates."""
    name = library.choose(chosen, found.source.library)
    time, labels = _steps(found, calendar)
    columns = {time: labels, **_paths(found)}
    return library.frame(columns, name, index=time if name == "pandas" else "")


def indicators(found: "Indicators", chosen: str) -> Any:
    """Rows of indicators, one per bar: the input's own index in pandas, a column of its labels in polars."""
    name = library.choose(chosen, found.source.library)
    labels, time = found.index, _time_name(found.source)
    if name == "pandas":
        made = library.frame(found.columns(), name)
        if labels is not None:
            made.index = labels
            made.index.name = getattr(labels, "name", None) or found.source.time_name or None
        return made
    columns = {} if labels is None else {time: labels}
    return library.frame({**columns, **found.columns()}, name)


def sentiment(found: "Sentiment", chosen: str) -> Any:
    """One row."""
    return library.frame({name: [getattr(found, name)] for name in _SENTIMENT}, library.choose(chosen, ""))


def forecasts(found: "Answers[Any]", calendar: str, chosen: str) -> Any:
    """Rows of many forecasts, a row for each item and step."""
    parts = [
        None if isinstance(item, MarketInferenceError) else (_steps(item, calendar), _paths(item))
        for item in found.values()
    ]
    regular = all(part is None or part[0][0] != "step" for part in parts)
    source = _example(found)
    time = (source.time_name or "time") if regular else "step"
    columns: dict[str, list[Any]] = {}
    for part in parts:
        if part is None:
            _append(columns, {time: [None]}, 1)
            continue
        (_, labels), paths = part
        size = len(labels)
        _append(columns, {time: labels if regular else np.arange(1, size + 1), **paths}, size)
    return _long(found, columns, chosen)


def many_indicators(found: "Answers[Any]", chosen: str) -> Any:
    """Rows of the indicators of many instruments, a row for each item and bar."""
    columns: dict[str, list[Any]] = {}
    time = _time_name(_example(found))
    for item in found.values():
        if isinstance(item, MarketInferenceError):
            _append(columns, {time: [None]}, 1)
            continue
        size = len(next(iter(item.values()), ()))
        labels = range(size) if item.index is None else item.index
        _append(columns, {time: labels, **item.columns()}, size)
    return _long(found, columns, chosen)


def sentiments(found: "Answers[Any]", chosen: str) -> Any:
    """A row for each text, under the index of the caller's column of texts."""
    name = library.choose(chosen, found.source.library)
    columns: dict[str, list[Any]] = {"symbol": list(found.symbols)} if found.symbols else {}
    for field in _SENTIMENT:
        columns[field] = [getattr(item, field, None) for item in found.values()]
    if found.errors:
        columns["error"] = [str(item) if isinstance(item, MarketInferenceError) else None for item in found.values()]
    made = library.frame(columns, name)
    if name == "pandas" and found.source.index is not None:
        made.index = found.source.index
    return made


def _steps(found: "Forecast", calendar: str) -> tuple[str, Any]:
    """The name and the labels of a forecast's rows."""
    labels = dates.following(found.index, found.horizon, calendar)
    if labels is None:
        return "step", np.arange(1, found.horizon + 1)
    return _time_name(found.source), labels


def _time_name(source: Source) -> str:
    return str(getattr(source.index, "name", None) or source.time_name or "time")


def _paths(found: "Forecast") -> dict[str, Any]:
    levels = {f"q{float(level)!r}": found.quantiles[:, at] for at, level in enumerate(found.levels)}
    return {"point": found.point, **levels}


def _append(columns: dict[str, list[Any]], rows: dict[str, Any], size: int) -> None:
    """Add rows to columns; a column without values in these rows, or in earlier rows, gets missing values there."""
    before = len(next(iter(columns.values()), ()))
    for name in rows:
        columns.setdefault(name, [None] * before)
    for name, values in columns.items():
        values.extend(rows.get(name, [None] * size))


def _long(found: "Answers[Any]", columns: dict[str, list[Any]], chosen: str) -> Any:
    source = _example(found)
    sizes = _row_counts(found)
    keys = [str(key) if found.symbols else key for key in found.keys()]  # noqa: SIM118 -- iteration differs
    symbol = source.symbol_name or ("symbol" if found.symbols else "item")
    head = {symbol: [key for key, size in zip(keys, sizes, strict=True) for _ in range(size)]}
    numeric = {name: _numbers(values) for name, values in columns.items()}
    if found.errors:
        errors = [str(item) if isinstance(item, MarketInferenceError) else None for item in found.values()]
        numeric["error"] = [error for error, size in zip(errors, sizes, strict=True) for _ in range(size)]
    return library.frame({**head, **numeric}, library.choose(chosen, source.library))


def _row_counts(found: "Answers[Any]") -> list[int]:
    return [1 if isinstance(item, MarketInferenceError) else _rows_of(item) for item in found.values()]


def _rows_of(item: Any) -> int:
    return len(next(iter(item.values()), ())) if isinstance(item, dict) else int(item.horizon)


def _numbers(values: Sequence[Any]) -> Any:
    """Numbers as float64 with NaN for missing ones; other values as they are."""
    if all(value is None or isinstance(value, float) for value in values):
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return list(values)


def _example(found: "Answers[Any]") -> Source:
    """The source of an answered item, for the names of the caller's columns and its library."""
    first = next(iter(found.answered.values()), None)
    return found.source if first is None or first.source is None else first.source
