"""The short forms of requests, turned into the contract's own.

Owns what a caller may write instead of the messages of inference.proto, and remembers it: an error then speaks of
`time_series` to a caller who wrote `time_series`. Types and limits are checked later, on the message.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from wire.errors import InvalidRequestError, Violation

Body = Mapping[str, Any]
# Field paths of the contract -> the caller's words.
Names = dict[str, str]
_COLUMNS = ("open", "high", "low", "close", "volume")


def predict(body: Body) -> tuple[dict[str, Any], Names]:
    """`time_series` with an optional `symbol` is one series."""
    if "time_series" not in body:
        return dict(body), {}
    full = _without(body, "time_series", "symbol", instead_of="series")
    full["series"] = [{"symbol": body.get("symbol"), "values": body["time_series"]}]
    return full, {"series[0].values": "time_series", "series[0].symbol": "symbol", "series[0]": "time_series"}


def sentiment(body: Body) -> tuple[dict[str, Any], Names]:
    """`text` is one of `texts`."""
    if "text" not in body:
        return dict(body), {}
    full = _without(body, "text", instead_of="texts")
    full["texts"] = [body["text"]]
    return full, {"texts[0]": "text"}


def indicators(body: Body) -> tuple[dict[str, Any], Names]:
    """`ohlcv`, an object of columns, with an optional `symbol` is one panel; an indicator may be its name alone."""
    full, names = dict(body), Names()
    if "ohlcv" in body:
        columns = body["ohlcv"]
        if not isinstance(columns, dict):
            raise _invalid("ohlcv", f"must be an object of columns: {', '.join(_COLUMNS)}")
        full = _without(body, "ohlcv", "symbol", instead_of="panels")
        full["panels"] = [{"symbol": body.get("symbol"), **columns}]
        names = {"panels[0]": "ohlcv", "panels[0].symbol": "symbol"}
    specs = body.get("indicators")
    if isinstance(specs, list):
        full["indicators"] = [{"name": spec} if isinstance(spec, str) else spec for spec in specs]
        names |= {
            f"indicators[{at}].name": f"indicators[{at}]" for at, spec in enumerate(specs) if isinstance(spec, str)
        }
    return full, names


def analyze(body: Body) -> tuple[dict[str, Any], Names]:
    """Each part in its own short form."""
    full, names = dict(body), Names()
    for part, expand in _PARTS.items():
        if isinstance(given := body.get(part), dict):
            full[part], inside = expand(given)
            names |= {f"{part}.{path}": f"{part}.{said}" for path, said in inside.items()}
    return full, names


@dataclass(frozen=True, slots=True)
class Watch:
    """A watch as the Analyze request of its last bar: `history` bars, then `bars` to be answered one by one."""

    body: dict[str, Any]
    names: Names
    history: int
    bars: int


def watch(body: Body) -> Watch:
    """`ohlcv` is the history, `bars` a list of objects; `indicators` and `forecast` say what each bar is answered with.

    Indicators give their newest value unless `last` says otherwise.
    """
    rest = {name: value for name, value in body.items() if name not in _WATCH}
    if rest:
        raise _invalid(next(iter(rest)), f"is not a field of watch; there are: {', '.join(_WATCH)}")
    panel, history = _joined(body.get("ohlcv"), body.get("bars"))
    full: dict[str, Any] = {}
    names = {"indicators": "", "indicators.panels[0]": "ohlcv", "predict": "forecast"}
    if body.get("indicators"):
        asked, inside = indicators({"indicators": body["indicators"]})
        specs = asked["indicators"]
        newest = [{"last": 1, **spec} if isinstance(spec, dict) else spec for spec in specs]
        full["indicators"] = {"panels": [{"symbol": body.get("symbol"), **panel}], "indicators": newest}
        names |= {f"indicators.{path}": said for path, said in inside.items()}
        names |= {"indicators.indicators": "indicators", "indicators.panels[0].symbol": "symbol"}
    if body.get("forecast") is not None:
        series = {"symbol": body.get("symbol"), "values": panel["close"]}
        full["predict"] = {**_object(body, "forecast"), "series": [series]}
        names |= {"predict.series[0].values": "ohlcv.close", "predict.series[0].symbol": "symbol"}
    if not full:
        raise _invalid("", "a watch needs indicators, a forecast, or both")
    return Watch(full, names, history, len(body["bars"]))


_WATCH = ("symbol", "ohlcv", "bars", "indicators", "forecast")


def _joined(history: Any, bars: Any) -> tuple[dict[str, list[Any]], int]:
    """The history's columns with the bars behind them, and the history's length."""
    if not isinstance(history, dict) or not isinstance(history.get("close"), list):
        raise _invalid("ohlcv", "must be an object of columns, close among them")
    if not isinstance(bars, list) or not bars:
        raise _invalid("bars", "must be a list of bars, at least one")
    panel = {name: list(column) if isinstance(column, list) else column for name, column in history.items()}
    for at, bar in enumerate(bars):
        if not isinstance(bar, dict) or set(bar) != set(panel):
            raise _invalid(f"bars[{at}]", f"must be an object with the history's columns: {', '.join(panel)}")
        for name, value in bar.items():
            if isinstance(column := panel[name], list):
                column.append(value)
    return panel, len(history["close"])


def _object(body: Body, name: str) -> dict[str, Any]:
    if not isinstance(given := body[name], dict):
        raise _invalid(name, "must be an object")
    return given


_PARTS: dict[str, Callable[[Body], tuple[dict[str, Any], Names]]] = {
    "predict": predict,
    "sentiment": sentiment,
    "indicators": indicators,
}


def _without(body: Body, short: str, *rest: str, instead_of: str) -> dict[str, Any]:
    if instead_of in body:
        raise _invalid(short, f"is a short form of {instead_of}: give one of the two")
    return {name: value for name, value in body.items() if name not in {short, *rest}}


def _invalid(field: str, description: str) -> InvalidRequestError:
    return InvalidRequestError([Violation(field, description, "json")])
