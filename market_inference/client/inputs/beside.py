"""Covariates and times of series, and groups of series that are forecast together.

Owns the users' forms of covariates, times and groups, and the match of rows: by time if the series and the covariate
have times, else by position. If the client reversed or left out rows of the series, positions are refused.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from market_inference.client.arrays import Floats
from market_inference.client.inputs import arguments, times
from market_inference.client.inputs.column import column
from market_inference.client.inputs.items import Given, Instants, Series
from market_inference.client.inputs.series import index_rows, is_flat
from market_inference.client.inputs.table import Rows, Table, rows_of, table_of
from market_inference.contract import methods
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.errors import ArgumentError

FIELD = "covariates"
LONGEST = int(methods.field_rules(pb.PredictRequest.DESCRIPTOR.fields_by_name["horizon"]).uint32.lte)
TOGETHER = "all"
"""The label of the group of all series."""


@dataclass(frozen=True, slots=True, eq=False)
class _Column:
    """One covariate: `values` [n], and the instants of the rows, None for rows without times."""

    values: Floats
    instants: Instants | None
    field: str


def covariates(
    given: Given[Series], values: Any, known_ahead: Any, horizon: int
) -> tuple[Given[Series], tuple[str, ...]]:
    """The series with the covariates, and the names of the covariates. Raises ArgumentError.

    `values`: a mapping of name to column, or a frame with a column for each covariate. A column is for all series; or a
    covariate has a column per series, in the form of the series: by symbol, or in the order of the series.
    `known_ahead`: the names of covariates with rows for the steps ahead. Rows of other covariates after the last row of
    the series are not read: a forecast must not see the future.
    """
    if isinstance(known_ahead, str) or not isinstance(known_ahead, Iterable):
        raise arguments.refuse("known_ahead", "names of covariates", known_ahead)
    ahead = {str(name) for name in known_ahead}
    table = None if values is None else table_of(values)
    if values is None and not ahead:
        return given, ()
    if horizon > LONGEST:  # before memory is taken for the steps
        raise ArgumentError("horizon", f"expected at most {LONGEST} steps, got {horizon}")
    if table is None:
        raise arguments.refuse(FIELD, "a mapping of name to column, or a frame with a column for each", values)
    time = table.named("time")
    rows = rows_of(table, FIELD) if time is not None or table.index is not None else None
    found = {
        arguments.text(str(name), FIELD): _for_each(one, given.items, f"{FIELD}[{str(name)!r}]", rows)
        for name, one in table.without(time).columns.items()
    }
    if not found:
        raise ArgumentError(FIELD, "expected at least one covariate, got none")
    if unknown := ahead - {*found}:
        raise ArgumentError("known_ahead", f"there is no covariate {min(unknown)!r}; there are {_few(found)}")
    steps = [horizon if name in ahead else 0 for name in found]
    items = [_beside(one, [each[at] for each in found.values()], steps, horizon) for at, one in enumerate(given.items)]
    return replace(given, items=tuple(items)), tuple(found)


def timed(given: Given[Series], instants: Any) -> Given[Series]:
    """The series with the times of their values. Raises ArgumentError.

    `instants`: True for the times in the index or a column of the series, or the times of one series.
    """
    if instants is None or instants is False:
        return given
    if instants is not True and not given.single:
        raise ArgumentError("times", "give True for the times of each series, or forecast one series")
    return replace(given, items=tuple(replace(one, times=_times_of(one, instants)) for one in given.items))


def _times_of(one: Series, instants: Any) -> Instants:
    of = f"the series {one.source.symbol!r}" if one.source.symbol else "the series"
    if instants is True:
        if one.source.index is None or not times.are_times(one.source.index):
            raise ArgumentError("times", f"{of} has no times: give a frame or a column with dates as index, or a list")
        return times.instants(one.source.index, "times")
    found = times.instants(instants, "times")
    if len(found) != len(one.values):
        raise ArgumentError("times", f"{of} has {len(one.values)} values, and there are {len(found)} times")
    if times.order(found, "times") is not None:
        raise ArgumentError("times", "newest first: give series and times oldest first")
    return found


def groups(given: Given[Series], labels: Any) -> list[str]:
    """The label of each series' group, "" for a series alone; empty for no groups. Raises ArgumentError.

    `labels`: True for one group of all, a mapping of symbol to label, or a label for each series.
    """
    if labels is None or labels is False:
        return []
    if given.single:
        raise ArgumentError("groups", "there is one series: a group needs several, in one call")
    if labels is True:
        return [TOGETHER] * len(given.items)
    if isinstance(labels, Mapping):
        symbols = [one.source.symbol for one in given.items]
        unknown = next((symbol for symbol in labels if symbol not in symbols), None)
        if unknown is not None:
            raise ArgumentError("groups", f"there is no series {unknown!r}; there are {_few(symbols)}")
        labels = [labels.get(symbol) for symbol in symbols]
    if isinstance(labels, str | bytes) or not isinstance(labels, Iterable):
        raise arguments.refuse("groups", "True, a mapping of symbol to label, or a label for each series", labels)
    found = ["" if label is None else arguments.text(str(label), "groups") for label in labels]
    if len(found) != len(given.items):
        raise ArgumentError("groups", f"there are {len(given.items)} series and {len(found)} labels")
    return found


def _for_each(values: Any, items: Sequence[Series], field: str, rows: Rows | None) -> Sequence[_Column]:
    """The column of each series."""
    if is_flat(values):
        return [_column(values, field, rows)] * len(items)
    table = table_of(values)
    if table is not None:
        return _by_symbol(table, [one.source.symbol for one in items], field)
    if isinstance(values, list | tuple | np.ndarray) and len(values) and np.ndim(values[0]) > 0:
        if len(values) != len(items):
            raise ArgumentError(field, f"there are {len(items)} series and {len(values)} columns")
        return [_column(one, f"{field}[{at}]", None) for at, one in enumerate(values)]
    return [_column(values, field, rows)] * len(items)


def _by_symbol(table: Table, symbols: Sequence[str], field: str) -> list[_Column]:
    time = table.named("time")
    rows = rows_of(table, field) if time is not None or table.index is not None else None
    columns = {str(name): values for name, values in table.without(time).columns.items()}
    missing = next((symbol for symbol in symbols if symbol not in columns), None)
    if missing is not None:
        raise ArgumentError(field, f"no column for the series {missing!r}; there are {_few(columns)}")
    return [_column(columns[symbol], f"{field}[{symbol!r}]", rows) for symbol in symbols]


def _column(values: Any, field: str, rows: Rows | None) -> _Column:
    """One column oldest first; `rows` are those of its table, None for a column by itself."""
    own = index_rows(values, field, "") if rows is None else rows
    array = column(values, field, flags=True)
    if own.positions is not None:
        array = array[own.positions]
    return _Column(array, own.instants, field)


def _beside(one: Series, columns: Sequence[_Column], steps: Sequence[int], horizon: int) -> Series:
    """The series with the columns as rows: `past` [covariates, n], `future` [covariates, horizon], NaN for no value."""
    past = np.empty((len(columns), len(one.values)))
    future = np.full((len(columns), horizon), np.nan)
    for row, (each, wanted) in enumerate(zip(columns, steps, strict=True)):
        past[row], future[row, :wanted] = _aligned(one, each, wanted)
    return replace(one, past=past, future=future if any(steps) else None)


def _aligned(one: Series, given: _Column, steps: int) -> tuple[Floats, Floats]:
    """The values at the rows of the series, NaN for a row without a value, and at `steps` steps ahead."""
    labels, size = one.source.index, len(one.values)
    if given.instants is not None and labels is not None and times.are_times(labels):
        return _by_time(times.instants(labels, "index"), given, steps)
    if one.source.notes:
        raise ArgumentError(
            given.field, f"{one.source.notes[0]}: give the covariate with times as the series has, to match the rows"
        )
    if len(given.values) != size + steps:
        of = f"one for each of the series and {steps} for the steps ahead" if steps else "one for each of the series"
        raise ArgumentError(given.field, f"expected {size + steps} values, {of}, got {len(given.values)}")
    return given.values[:size], given.values[size:]


def _by_time(rows: Instants, given: _Column, steps: int) -> tuple[Floats, Floats]:
    instants = given.instants if given.instants is not None else rows[:0]
    at = np.searchsorted(instants, rows)
    found = at < len(instants)
    found[found] = instants[at[found]] == rows[found]
    if not found.any():
        raise ArgumentError(
            given.field,
            f"no time of the series is among its times, {times.label(instants[0])} to {times.label(instants[-1])}"
            if len(instants)
            else "has no rows",
        )
    past = np.full(len(rows), np.nan)
    past[found] = given.values[at[found]]
    after = int(np.searchsorted(instants, rows[-1], side="right"))
    later = given.values[after : after + steps]
    if len(later) < steps:
        raise ArgumentError(
            given.field,
            f"has {len(later)} rows after the newest of the series, {times.label(rows[-1])}; "
            f"there are {steps} steps ahead",
        )
    return past, later


def _few(names: Iterable[str]) -> str:
    known = [*names]
    return ", ".join(known[:5]) + (f" and {len(known) - 5} more" if len(known) > 5 else "")
