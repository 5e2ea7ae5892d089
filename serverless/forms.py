"""The short forms of requests, expanded to the contract's messages.

Owns the shorthand that a caller may write instead of the messages of inference.proto, such as `time_series` for
`series`, and the map from field paths back to the shorthand, so that errors name the fields of the caller's JSON. Types
and limits are checked later, on the message.
"""

from collections.abc import Callable, Mapping
from typing import Any

from market_inference.contract.errors import InvalidRequestError, Violation

Body = Mapping[str, Any]
# Field paths of the contract -> field names in the caller's JSON.
Names = dict[str, str]
COLUMNS = ("open", "high", "low", "close", "volume")


def predict(body: Body) -> tuple[dict[str, Any], Names]:
    """Expand `time_series` with an optional `symbol` to a list of one series."""
    if "time_series" not in body:
        return dict(body), {}
    full = _without(body, "time_series", "symbol", instead_of="series")
    full["series"] = [{"symbol": body.get("symbol"), "values": body["time_series"]}]
    return full, {"series[0].values": "time_series", "series[0].symbol": "symbol", "series[0]": "time_series"}


def sentiment(body: Body) -> tuple[dict[str, Any], Names]:
    """Expand `text` to a list `texts` of one text."""
    if "text" not in body:
        return dict(body), {}
    full = _without(body, "text", instead_of="texts")
    full["texts"] = [body["text"]]
    return full, {"texts[0]": "text"}


def indicators(body: Body) -> tuple[dict[str, Any], Names]:
    """Expand `ohlcv`, an object of columns, with an optional `symbol` to one panel, and indicator names to specs."""
    full, names = dict(body), Names()
    if "ohlcv" in body:
        columns = body["ohlcv"]
        if not isinstance(columns, dict):
            raise invalid("ohlcv", f"must be an object of columns: {', '.join(COLUMNS)}")
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
    """Expand the short form of each part."""
    full, names = dict(body), Names()
    for part, expand in _PARTS.items():
        if isinstance(given := body.get(part), dict):
            full[part], inside = expand(given)
            # Paths of both kinds: an error of the whole request begins with the part, an error in a part's answer
            # does not.
            names |= inside | {f"{part}.{path}": f"{part}.{said}" for path, said in inside.items()}
    return full, names


_PARTS: dict[str, Callable[[Body], tuple[dict[str, Any], Names]]] = {
    "predict": predict,
    "sentiment": sentiment,
    "indicators": indicators,
}


def _without(body: Body, short: str, *rest: str, instead_of: str) -> dict[str, Any]:
    if instead_of in body:
        raise invalid(short, f"is a short form of {instead_of}: give one of the two")
    return {name: value for name, value in body.items() if name not in {short, *rest}}


def invalid(field: str, description: str) -> InvalidRequestError:
    """An InvalidRequestError for one field."""
    return InvalidRequestError([Violation(field, description, "json")])
