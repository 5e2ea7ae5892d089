"""KServe's time series forecast API: requests become the contract's, and the contract's answers become KServe's.

Owns the mapping in both directions. `mean_forecast` is the median path: the contract has no mean. A series that fails
among others is a separate output with status "error", and the whole answer is "partial".

Source: the Python types in kserve.protocol.rest.timeseries (PyPI kserve 0.21) and the documentation at
https://kserve.github.io/website/.
"""

import calendar
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from google.rpc import status_pb2

from edge.problem import http_status
from market_inference.contract.errors import InvalidRequestError, Violation, reason_of
from market_inference.contract.generated import inference_pb2
from market_inference.contract.json_form import decode, encode, forms, mistakes

UNIVARIATE: Final = "univariate_time_series"
MULTIVARIATE: Final = "multivariate_time_series"
_TYPES: Final = (UNIVARIATE, MULTIVARIATE)
_SECONDS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}
_MONTHS: Final = {"month": 1, "quarter": 3, "year": 12}
_SHORT: Final = {
    "S": "second", "T": "minute", "H": "hour", "D": "day", "W": "week", "M": "month", "Q": "quarter", "Y": "year",
}  # fmt: skip
LAST_YEAR: Final = 9997
FREQUENCIES: Final = (*_SECONDS, *_MONTHS, *_SHORT)
OPTIONS: Final = ("horizon", "quantiles")
COVARIATES: Final = ("past_covariates", "future_covariates")
"""Fields of an input beside KServe's own, which allows more fields: a list of numbers by name."""


@dataclass(frozen=True, slots=True)
class Input:
    """The parts of an input for the answer. `start`: the instant of the first forecast step, "" where unknown.

    `variables`: the number of series of a multivariate input, 0 for a univariate input.
    """

    name: str
    frequency: str
    start: str
    variables: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """`body`: the contract's request as JSON. `names`: field paths of the contract -> the caller's."""

    body: dict[str, Any]
    names: dict[str, str]
    inputs: list[Input]


def read(body: Mapping[str, Any]) -> Asked:
    """Read a ForecastRequest. Raises InvalidRequestError with every mistake in its form."""
    wrong: list[Violation] = []
    inputs, options = body.get("inputs"), body.get("options")
    if not isinstance(body.get("model", ""), str):
        wrong.append(Violation("model", "must be a string: a model's name, or empty for the default", "json"))
    if not isinstance(inputs, list) or not inputs:
        wrong.append(Violation("inputs", "must be a list of time series, at least one", "json"))
    if not isinstance(options, dict) or "horizon" not in options:
        wrong.append(Violation("options.horizon", "is missing", "json"))
    if wrong:
        raise InvalidRequestError(wrong)
    fields: Any = inference_pb2.PredictRequest.DESCRIPTOR.fields_by_name
    # Before any input is read: an input could add several violations.
    decode.check_length(fields["series"], inputs or [], "inputs")
    found = [_input(one, f"inputs[{at}]", wrong) for at, one in enumerate(inputs or [])]
    if wrong:
        raise InvalidRequestError(wrong)
    names = {"horizon": "options.horizon", "quantiles": "options.quantiles", "series": "inputs"}
    series: list[dict[str, Any]] = []
    groups: list[str] = []
    decode.check_length(fields["series"], range(sum(max(1, own.variables) for own in found)), "inputs")
    for at, (own, one) in enumerate(zip(found, inputs or [], strict=True)):
        columns = [*map(list, zip(*one["series"], strict=True))] if own.variables else [one["series"]]
        for column in columns:
            place = f"series[{len(series)}]"
            names |= {place: f"inputs[{at}]", f"{place}.symbol": f"inputs[{at}].name"}
            names |= {f"{place}.values": f"inputs[{at}].series", f"groups[{len(series)}]": f"inputs[{at}]"}
            # The series of a group share covariates: the first series carries the covariates.
            beside = {name: one[name] for name in COVARIATES if name in one} if column is columns[0] else {}
            names |= {name: f"inputs[{at}].past_covariates" for name in ("covariates",) if beside}
            series.append({"symbol": own.name, "values": column, **beside})
            groups.append(str(at) if own.variables else "")
        if own.variables:
            names.setdefault("groups", f"inputs[{at}].type")
    made = {"model": body.get("model", ""), "series": series} | ({"groups": groups} if any(groups) else {})
    made |= {name: (options or {})[name] for name in OPTIONS if name in (options or {})}
    try:
        made, _ = forms.predict(made)
    except InvalidRequestError as error:
        raise InvalidRequestError(
            [replace(one, field=mistakes.renamed(one.field, names)) for one in error.violations]
        ) from None
    return Asked(made, names, found)


def _input(given: Any, path: str, wrong: list[Violation]) -> Input:
    """One input; mistakes are added to `wrong`."""
    if not isinstance(given, dict):
        wrong.append(Violation(path, "must be an object", "json"))
        return Input("", "", "")
    if given.get("type") not in _TYPES:
        wrong.append(Violation(f"{path}.type", f"must be {UNIVARIATE} or {MULTIVARIATE}", "json"))
    if not isinstance(given.get("name"), str):
        wrong.append(Violation(f"{path}.name", "must be a string", "json"))
    variables = 0
    if not isinstance(given.get("series"), list):
        wrong.append(Violation(f"{path}.series", "must be a list of numbers", "json"))
    elif given.get("type") == MULTIVARIATE:
        variables = _variables(given["series"], path, wrong)
    frequency = given.get("frequency")
    if not isinstance(frequency, str) or frequency not in FREQUENCIES:
        wrong.append(Violation(f"{path}.frequency", f"must be one of {', '.join(FREQUENCIES)}", "json"))
        return Input("", "", "")
    return Input(str(given.get("name")), frequency, _next_start(given, path, wrong), variables)


def _variables(rows: list[Any], path: str, wrong: list[Violation]) -> int:
    """The number of variables of a multivariate series, a row per time; 0 for a mistake."""
    sizes = {len(row) if isinstance(row, list) else 0 for row in rows}
    if len(sizes) != 1 or not min(sizes):
        text = "must be a list of rows, one for each time, with as many numbers each as there are variables"
        wrong.append(Violation(f"{path}.series", text, "json"))
        return 0
    return sizes.pop()


def _next_start(given: Mapping[str, Any], path: str, wrong: list[Violation]) -> str:
    """The instant after the last value, as ISO 8601; "" when the input has no start."""
    start, values = given.get("start_timestamp"), given.get("series")
    if start is None:
        return ""
    try:
        first = datetime.fromisoformat(start)
        start = ahead(first, given["frequency"], len(values) if isinstance(values, list) else 0)
        if start.year > LAST_YEAR:
            raise OverflowError
        return start.isoformat()
    except (TypeError, ValueError, OverflowError):
        wrong.append(Violation(f"{path}.start_timestamp", "must be an ISO 8601 instant before the year 9998", "json"))
        return ""


def ahead(first: datetime, frequency: str, steps: int) -> datetime:
    """The instant `steps` periods after `first`; a month's end stays within its month.

    Raises OverflowError, ValueError.
    """
    unit = _SHORT.get(frequency, frequency)
    if unit in _SECONDS:
        return first + timedelta(seconds=steps * _SECONDS[unit])
    months = first.year * 12 + first.month - 1 + steps * _MONTHS[unit]
    year, month = months // 12, months % 12 + 1
    return first.replace(year=year, month=month, day=min(first.day, calendar.monthrange(year, month)[1]))


def write(answer: inference_pb2.PredictResponse, asked: Asked) -> dict[str, Any]:
    """A ForecastResponse."""
    levels = [repr(level) for level in answer.quantile_levels]  # exact: close levels stay apart
    good: list[dict[str, Any]] = []
    outputs: list[dict[str, Any]] = []
    forecasts = iter(answer.forecasts)
    for at, own in enumerate(asked.inputs):
        found = [next(forecasts) for _ in range(max(1, own.variables))]
        # The series of a group fail together; the error that does not point to another series has the reason.
        bad = [error(one.error, asked.names) for one in found if one.HasField("error")]
        if bad:
            reason = min(bad, key=lambda one: "has a refused series" in one["message"])
            outputs.append(_output(f"{answer.request_id}/{at}", "error", [], reason))
        elif own.variables:
            good.append(_multivariate(own, [_forecast(own, one.forecast, levels) for one in found]))
        else:
            good.append(_forecast(own, found[0].forecast, levels))
    whole = {"id": answer.request_id, "created_at": int(time.time()), "model": answer.model}
    done = [_output(answer.request_id, "completed", good, None)] if good else []
    return whole | {
        "status": "partial" if outputs and done else "completed" if done else "error",
        "error": None,
        "outputs": [*done, *outputs],
        "model_version": answer.model_version,
    }


def _output(made: str, status: str, content: list[dict[str, Any]], failed: dict[str, Any] | None) -> dict[str, Any]:
    return {"type": "time_series_forecast", "id": made, "status": status, "content": content, "error": failed}


def _forecast(own: Input, forecast: inference_pb2.Forecast, levels: list[str]) -> dict[str, Any]:
    point = encode.numbers(forecast.point)
    flat = encode.numbers(forecast.quantiles)
    names: dict[str, str] = {}
    return {
        "type": UNIVARIATE,
        "name": own.name,
        "mean_forecast": point,
        "frequency": own.frequency,
        "start_timestamp": own.start,
        "quantiles": {level: flat[place :: len(levels)] for place, level in enumerate(levels)},
        "coverage": encode.to_json(forecast.coverage, names),
        "warnings": [encode.to_json(warning, names) for warning in forecast.warnings],
    }


def _multivariate(own: Input, each: list[dict[str, Any]]) -> dict[str, Any]:
    """The forecast of a multivariate input from those of the variables: a row per time, and lists of `coverage`."""
    return each[0] | {
        "type": MULTIVARIATE,
        "mean_forecast": _rows([one["mean_forecast"] for one in each]),
        "quantiles": {level: _rows([one["quantiles"][level] for one in each]) for level in each[0]["quantiles"]},
        "coverage": [one["coverage"] for one in each],
        "warnings": [one["warnings"] for one in each],
    }


def _rows(columns: list[list[Any]]) -> list[list[Any]]:
    return [list(row) for row in zip(*columns, strict=True)]


def error(status: status_pb2.Status, names: Mapping[str, str]) -> dict[str, Any]:
    """KServe's Error object."""
    text = mistakes.text(status, names)
    return {"code": str(http_status(status)), "message": text, "param": None, "type": reason_of(status)}
