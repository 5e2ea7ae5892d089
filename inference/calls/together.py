"""The series of a Predict request with covariates, groups or times as items of a model.

Owns the rules between the columns of a series and the fields of the request, and the items: one for a series, one for a
group of series. A series that breaks a rule fails alone, or with its group: without it, the others' forecasts would be
other ones.
"""

from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple

import numpy as np
from google.rpc import status_pb2
from numpy.typing import NDArray

from market_inference.contract import methods
from market_inference.contract.encoding import twins
from market_inference.contract.encoding.wireformat import NUMBER_BYTES
from market_inference.contract.errors import InvalidRequestError, NotTakenError, Violation
from market_inference.contract.generated import inference_pb2, requests_pb2
from models.forecast import TAKES, Covariates, Group, Series

MOST_ROWS: Final = methods.max_rows(inference_pb2.PredictRequest.DESCRIPTOR.fields_by_name["groups"])

_PAST: Final = attrgetter("past_covariates")
_FUTURE: Final = attrgetter("future_covariates")
_TIMES: Final = attrgetter("times")
# March 1973: seconds, milliseconds and microseconds of today are below.
_LEAST_INSTANT: Final = 10**17


class Items(NamedTuple):
    """`places`: of each item the indices of its series in the request. `refused`: a status or None for each series."""

    items: list[Series | Group]
    places: list[list[int]]
    refused: list[status_pb2.Status | None]

    def in_order(self, outcomes: Sequence[Any]) -> list[Any]:
        """The outcomes of the items as one for each series of the request."""
        found: list[Any] = list(self.refused)
        for places, outcome in zip(self.places, outcomes, strict=True):
            each = outcome if type(outcome) is tuple else (outcome,) * len(places)
            for place, one in zip(places, each, strict=True):
                found[place] = one
        return found


def require_taken(model: Any, what: str, given: object, field: str) -> None:
    """Raises NotTakenError for a value in a field that the model does not take."""
    if given and what not in getattr(model, "takes", ()):
        takers = [name for name, fields in TAKES.items() if what in fields]
        text = f"model {model.name} takes no {what}; {' and '.join(takers)} {'do' if len(takers) > 1 else 'does'}"
        raise NotTakenError([Violation(field, text, what)])


def not_nanoseconds(newest: int) -> str:
    """The mistake of a time that is hardly meant as nanoseconds; empty for none."""
    if abs(newest) >= _LEAST_INSTANT:
        return ""
    return f"must be nanoseconds since the epoch (got {newest}, which is {np.datetime64(newest, 'ns')})"


def asked(request: requests_pb2.PredictColumns, series: Sequence[requests_pb2.SeriesColumns]) -> bool:
    """Whether the request has covariates, groups or times."""
    columns = any(map(_PAST, series)) or any(map(_FUTURE, series)) or any(map(_TIMES, series))
    return bool(columns or request.covariates or request.groups)


def read(
    request: requests_pb2.PredictColumns,
    levels: tuple[float, ...],
    model: Any,
    refused: list[status_pb2.Status | None],
    request_id: str,
) -> Items:
    """The items of a request. Raises InvalidRequestError when no series is left, and NotTakenError."""
    require_taken(model, "covariates", request.covariates, "covariates")
    require_taken(model, "groups", request.groups, "groups")
    series = request.series[:]
    timed = next((index for index, one in enumerate(series) if one.times), None)
    require_taken(model, "times", timed is not None, f"series[{timed}].times")
    labels = request.groups[:] or [""] * len(series)
    if len(labels) != len(series):
        text = f"must have as many values as series, or none ({len(series)}, got {len(labels)})"
        raise InvalidRequestError([Violation("groups", text, "equal_length")])
    wrong = {
        index: broken
        for index, one in enumerate(series)
        if refused[index] is None and (broken := _broken(one, index, request)) is not None
    }
    groups: dict[object, list[int]] = {}
    for index, label in enumerate(labels):
        groups.setdefault(label or index, []).append(index)
    for places in groups.values():
        wrong.update(_of_group(places, len(request.covariates), series, {*wrong}, refused))
    if wrong and all(status is not None or index in wrong for index, status in enumerate(refused)):
        raise InvalidRequestError([*wrong.values()])
    refused = [
        status if index not in wrong else InvalidRequestError([wrong[index]]).status(request_id)
        for index, status in enumerate(refused)
    ]
    kept = [places for places in groups.values() if refused[places[0]] is None]
    return Items([_item(places, series, request, levels) for places in kept], kept, refused)


def _broken(one: requests_pb2.SeriesColumns, index: int, request: requests_pb2.PredictColumns) -> Violation | None:
    """The rule between columns and request that a series breaks."""
    rows, values = len(request.covariates), len(one.values) // NUMBER_BYTES
    columns = (
        ("past_covariates", len(one.past_covariates) // NUMBER_BYTES, values, "values"),
        ("future_covariates", len(one.future_covariates) // NUMBER_BYTES, request.horizon, "steps ahead"),
    )
    for name, count, width, of in columns:
        if count and not rows:
            return Violation(f"series[{index}].{name}", "needs the names of its rows in covariates", "covariates")
        if count and count != rows * width:
            text = f"must have {rows} covariates x {width} {of} = {rows * width} values, or none (got {count})"
            return Violation(f"series[{index}].{name}", text, "equal_length")
    if (count := len(one.times) // NUMBER_BYTES) not in {0, values}:
        text = f"must have one time for each value of the series, or none ({values}, got {count})"
        return Violation(f"series[{index}].times", text, "equal_length")
    if one.times and (text := not_nanoseconds(int(_instants(one.times)[-1]))):
        return Violation(f"series[{index}].times", text, "nanoseconds")
    if one.future_covariates and not one.past_covariates:
        text = "need past_covariates: a model learns from the past what the values ahead say"
        return Violation(f"series[{index}].future_covariates", text, "past_covariates")
    return None


def _instants(column: bytes) -> NDArray[np.int64]:
    return np.frombuffer(bytes(column), "<i8")


def _of_group(
    places: list[int],
    covariates: int,
    series: Sequence[requests_pb2.SeriesColumns],
    wrong: set[int],
    refused: Sequence[status_pb2.Status | None],
) -> Iterator[tuple[int, Violation]]:
    """The mistakes of the members of a group that has a refused member or is too large."""
    rows = len(places) + covariates * sum(1 for place in places if series[place].past_covariates)
    bad = next((place for place in places if place in wrong or refused[place] is not None), None)
    for place in places:
        if place in wrong or refused[place] is not None:
            continue
        if bad is not None:
            yield place, Violation(f"groups[{place}]", f"the group has a refused series (series[{bad}])", "group")
        elif rows > MOST_ROWS:
            text = f"the group is too large (max {MOST_ROWS} series and covariates, got {rows})"
            yield place, Violation(f"groups[{place}]", text, "max_rows")


def _item(
    places: Sequence[int],
    series: Sequence[requests_pb2.SeriesColumns],
    request: requests_pb2.PredictColumns,
    levels: tuple[float, ...],
) -> Series | Group:
    members = tuple(_series(series[place], request, levels) for place in places)
    return members[0] if len(members) == 1 else Group(members)


def _series(one: requests_pb2.SeriesColumns, request: requests_pb2.PredictColumns, levels: tuple[float, ...]) -> Series:
    rows, covariates = len(request.covariates), None
    if one.past_covariates:
        ahead = twins.array(one.future_covariates)
        covariates = Covariates(
            twins.array(one.past_covariates).reshape(rows, -1),
            ahead.reshape(rows, -1) if ahead.size else np.full((rows, request.horizon), np.nan),
        )
    times = _instants(one.times) if one.times else None
    return Series(twins.array(one.values), request.horizon, levels, one.symbol, request.period, covariates, times)
