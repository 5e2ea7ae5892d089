"""The `watch` action: a history, then bars that are answered one by one.

Owns the input form, and the request behind each answer: the full call over all bars up to the answered bar. Types and
limits are checked later, on the message.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from market_inference.contract.generated import inference_pb2
from market_inference.contract.json_form import forms
from market_inference.contract.json_form.forms import COLUMNS, Body, Names, invalid

_FIELDS = ("symbol", "ohlcv", "bars", "indicators", "forecast")


@dataclass(frozen=True, slots=True)
class Watch:
    """`body`: the last bar's Analyze request. `history`: bars before the first answer. `bars`: number of answers."""

    body: dict[str, Any]
    names: Names
    history: int
    bars: int


def read(body: Body) -> Watch:
    """Read a watch. `ohlcv`: the history. `bars`: a list of objects. `indicators`, `forecast`: the content of answers.

    Raises InvalidRequestError.
    """
    if unknown := [name for name in body if name not in _FIELDS]:
        raise invalid(unknown[0], f"is not a field of watch; there are: {', '.join(_FIELDS)}")
    panel, history = _joined(body.get("ohlcv"), body.get("bars"))
    full: dict[str, Any] = {}
    names = Names()
    if body.get("indicators"):
        full["indicators"], inside = _indicators(body, panel)
        names |= inside
    if body.get("forecast") is not None:
        full["predict"], inside = _forecast(body, panel)
        names |= inside
    if not full:
        raise invalid("", "a watch needs indicators, a forecast, or both")
    return Watch(full, names, history, len(body["bars"]))


def _indicators(body: Body, panel: Mapping[str, Any]) -> tuple[dict[str, Any], Names]:
    """The indicators part: the newest value of each indicator, unless `last` is given."""
    part, inside = forms.indicators({"symbol": body.get("symbol"), "ohlcv": panel, "indicators": body["indicators"]})
    if isinstance(specs := part["indicators"], list):
        part["indicators"] = [{"last": 1, **spec} if isinstance(spec, dict) else spec for spec in specs]
    inside["indicators"] = "indicators"
    return part, inside | {f"indicators.{path}": said for path, said in inside.items()}


def _forecast(body: Body, panel: Mapping[str, Any]) -> tuple[dict[str, Any], Names]:
    """The predict part, with the closes as series."""
    if not isinstance(given := body["forecast"], dict):
        raise invalid("forecast", "must be an object")
    series = {"symbol": body.get("symbol"), "values": panel["close"]}
    said = {"predict": "forecast", "predict.series[0].values": "ohlcv.close", "predict.series[0].symbol": "symbol"}
    return {**given, "series": [series]}, said


def _joined(history: Any, bars: Any) -> tuple[dict[str, list[Any]], int]:
    """The columns of history and bars together, and the length of the history."""
    if not isinstance(history, dict) or not isinstance(history.get("close"), list):
        raise invalid("ohlcv", "must be an object of columns, close among them")
    if not isinstance(bars, list) or not bars:
        raise invalid("bars", "must be a list of bars, at least one")
    panel = {name: list(column) if isinstance(column, list) else column for name, column in history.items()}
    for at, bar in enumerate(bars):
        if not isinstance(bar, dict) or set(bar) != set(panel):
            raise invalid(f"bars[{at}]", f"must be an object with the history's columns: {', '.join(panel)}")
        for name, value in bar.items():
            if isinstance(column := panel[name], list):
                column.append(value)
    return panel, len(history["close"])


def until(message: inference_pb2.AnalyzeRequest, bars: int) -> inference_pb2.AnalyzeRequest:
    """The request as of an earlier bar: every column cut to the first `bars` values."""
    seen = inference_pb2.AnalyzeRequest()
    seen.CopyFrom(message)
    columns = [getattr(panel, name) for panel in seen.indicators.panels for name in COLUMNS]
    for column in [*columns, *(series.values for series in seen.predict.series)]:
        del column[bars:]
    return seen
