"""The short forms of requests, expanded to the contract's messages.

Owns the shorthand that a caller may write instead of the messages of inference.proto, such as `time_series` for
`series`, and the map from field paths back to the shorthand, so that errors name the fields of the caller's JSON. Types
and limits are checked later, on the message; a limit of what a short form multiplies is checked before.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from google.protobuf.descriptor import FieldDescriptor

from market_inference.contract.errors import InvalidRequestError, Violation
from market_inference.contract.json_form import decode, mistakes
from market_inference.contract.methods import METHODS, field_rules

Body = Mapping[str, Any]
# Field paths of the contract -> field names in the caller's JSON.
Names = dict[str, str]
_COVARIATES = ("past_covariates", "future_covariates")
_BESIDE = (*_COVARIATES, "times")
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_NUMBER_OR_NULL = {int, float, type(None)}
_LONGEST_NAME = 64
COLUMNS = ("open", "high", "low", "close", "volume")
_EXAMPLES = {
    "Predict": '{"time_series": [101, 102, 103], "horizon": 5}',
    "AnalyzeSentiment": '{"texts": ["Profit rose sharply"]}',
    "ComputeIndicators": '{"ohlcv": {"close": [101, 102, 103]}, "indicators": ["SMA:timeperiod=2"]}',
}


def predict(body: Body) -> tuple[dict[str, Any], Names]:
    """The full form; a request without a horizon is refused last. Raises InvalidRequestError."""
    _check_names(body, "Predict", "time_series", "values", "symbol", *_BESIDE)
    expanded = _predict(body)
    if body.get("horizon") is None:
        most = field_rules(_field("Predict", "horizon")).uint32.lte
        raise invalid("horizon", f"is missing: the number of steps ahead, from 1 to {most}")
    return expanded


def _predict(body: Body) -> tuple[dict[str, Any], Names]:
    """Expand one series, or lists of values, to series; covariates by name to columns; times as text to nanoseconds."""
    short = _short(body)
    if not short:
        full, names = _with_lists(dict(body))
        return _with_columns(_with_times(full, names), names), names
    full = _without(body, short, "symbol", *_BESIDE)
    own = {name: body[name] for name in _BESIDE if name in body}
    full["series"] = [{"symbol": body.get("symbol"), "values": body[short], **own}]
    names = {"series[0].values": short, "series[0].symbol": "symbol", "series[0]": short}
    names |= {f"series[0].{name}": name for name in own}
    names |= {"covariates": "past_covariates"} if own else {}
    return _with_columns(_with_times(full, names), names), names


def _short(body: Body) -> str:
    """The name of the field with the values of one series; "" for the full form."""
    given = [name for name in ("time_series", "values", "series") if name in body]
    if len(given) > 1:
        raise invalid(given[0], f"is a short form of series: leave {given[1]} out, or {given[0]}")
    series = body.get("series")
    is_one = isinstance(series, list) and len(series) > 0 and type(series[0]) in (int, float)
    return given[0] if given and (given[0] != "series" or is_one) else ""


def _with_lists(full: dict[str, Any]) -> tuple[dict[str, Any], Names]:
    """The request with a series for each list of values."""
    series = full.get("series")
    if not isinstance(series, list):
        return full, {}
    decode.check_length(_field("Predict", "series"), series, "series")  # 256 KiB hold 87,000 empty ones
    lists = [at for at, one in enumerate(series) if isinstance(one, list)]
    if not lists:
        return full, {}
    made = [{"values": one} if isinstance(one, list) else one for one in series]
    return full | {"series": made}, {f"series[{at}].values": f"series[{at}]" for at in lists}


def _with_times(full: dict[str, Any], names: Names) -> dict[str, Any]:
    """The request with times in ISO 8601 as nanoseconds since the epoch; UTC where there is no zone."""
    series = full.get("series")
    if not isinstance(series, list) or not any(isinstance(one, dict) and one.get("times") for one in series):
        return full
    made = []
    for at, one in enumerate(series):
        times = one.get("times") if isinstance(one, dict) else None
        if isinstance(times, list) and any(isinstance(time, str) for time in times):
            path = mistakes.renamed(f"series[{at}].times", names)
            one = one | {"times": [_nanoseconds(time, f"{path}[{place}]") for place, time in enumerate(times)]}
        made.append(one)
    return full | {"series": made}


def _nanoseconds(time: Any, path: str) -> int:
    try:
        found = datetime.fromisoformat(time)
    except (TypeError, ValueError):
        raise invalid(path, "must be a time in ISO 8601, or all are nanoseconds since the epoch") from None
    return ((found if found.tzinfo else found.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND * 1000


def _with_columns(full: dict[str, Any], names: Names) -> dict[str, Any]:
    """The request with the columns of every series that has covariates by name; null is a missing value.

    All of these series have the same covariates, so that no series grows by the names of others. Raises
    InvalidRequestError in the caller's words.
    """
    series = full.get("series")
    if not isinstance(series, list) or not any(isinstance(one, dict) and _named(one) for one in series):
        return full
    if full.get("covariates"):
        raise invalid("covariates", "are named in past_covariates: leave the list out")
    known: list[str] | None = None
    made = []
    for at, one in enumerate(series):
        if not isinstance(one, dict) or not _named(one):
            made.append(one)
            continue
        past, future = (_by_name(one, name, f"series[{at}].{name}", names) for name in _COVARIATES)
        known = [*past] if known is None else known
        path = mistakes.renamed(f"series[{at}].past_covariates", names)
        if {*past} != {*known}:
            raise invalid(path, f"must have the names of the first series with covariates: {', '.join(known)}")
        if unknown := [name for name in future if name not in past]:
            raise invalid(f"{mistakes.renamed(f'series[{at}].future_covariates', names)}.{unknown[0]}", "has no past")
        values, horizon = one.get("values"), _horizon(full.get("horizon"))
        if isinstance(values, list):
            _check_lengths(past, len(values), "values of the series", path)
        columns = {"past_covariates": [value for name in known for value in past[name]]}
        if future and horizon:
            ahead = mistakes.renamed(f"series[{at}].future_covariates", names)
            _check_lengths(future, horizon, "steps ahead", ahead)
            nothing = [math.nan] * horizon
            columns["future_covariates"] = [value for name in known for value in future.get(name, nothing)]
        made.append({**{name: value for name, value in one.items() if name not in _COVARIATES}, **columns})
    return {**full, "series": made, "covariates": known}


def _horizon(given: Any) -> int:
    """The steps ahead; 0 for a value that the contract refuses."""
    most = field_rules(_field("Predict", "horizon")).uint32.lte
    return int(given) if isinstance(given, int | float) and given in range(1, most + 1) else 0


def _named(one: dict[str, Any]) -> bool:
    return any(isinstance(one.get(name), dict) for name in _COVARIATES)


def _by_name(one: dict[str, Any], field: str, path: str, names: Names) -> dict[str, list[float]]:
    """The columns of a field by name, null as NaN."""
    path, given = mistakes.renamed(path, names), one.get(field) or {}
    if not isinstance(given, dict):
        raise invalid(path, "must be an object of lists by name, as the other field of covariates is")
    decode.check_length(_field("Predict", "covariates"), given, path)
    found = {}
    for name, column in given.items():
        if not isinstance(column, list):
            raise invalid(f"{path}.{name}", "must be a list of numbers; null for a missing one")
        if not {*map(type, column)} <= _NUMBER_OR_NULL:
            at = next(at for at, value in enumerate(column) if type(value) not in _NUMBER_OR_NULL)
            raise invalid(f"{path}.{name}[{at}]", "must be a number, or null for a missing one")
        found[name] = [math.nan if value is None else value for value in column]
    return found


def _check_lengths(columns: dict[str, list[float]], size: int, of: str, path: str) -> None:
    for name, column in columns.items():
        if len(column) != size:
            raise invalid(f"{path}.{name}", f"must be as many as {of} ({size}, got {len(column)})")


def sentiment(body: Body) -> tuple[dict[str, Any], Names]:
    """Expand `text` to a list `texts` of one text; `about`, a company or several, asks for the text towards each."""
    _check_names(body, "AnalyzeSentiment", "text")
    if "text" not in body:
        return dict(body), {}
    full = _without(body, "text", instead_of="texts")
    about = body.get("about")
    if about is None:
        full["texts"] = [body["text"]]
        return full, {"texts[0]": "text"}
    full["about"] = about if isinstance(about, list) else [about]
    _check_copies(body["text"], full["about"])
    full["texts"] = [body["text"]] * max(1, len(full["about"]))
    names = {f"texts[{at}]": "text" for at in range(len(full["texts"]))}
    return full, names if isinstance(about, list) else names | {"about[0]": "about"}


def _check_copies(text: Any, about: list[Any]) -> None:
    """Raises InvalidRequestError before a text is copied for more companies, or to more bytes, than a request holds."""
    texts, method = _field("AnalyzeSentiment", "texts"), METHODS["AnalyzeSentiment"]
    decode.check_length(_field("AnalyzeSentiment", "about"), about, "about")
    if isinstance(text, str) and len(text) * len(about) > method.max_request_bytes:
        most = field_rules(texts).repeated.items.string.max_len
        if len(text) > most:
            raise InvalidRequestError(
                [Violation("text", f"too long (max {most} characters, got {len(text)})", "string.max_len")]
            )


def indicators(body: Body) -> tuple[dict[str, Any], Names]:
    """Expand the columns of one panel, in `ohlcv` or beside `indicators`, to panels, and indicator names to specs."""
    _check_names(body, "ComputeIndicators", "ohlcv", "symbol", *COLUMNS)
    full, names = dict(body), Names()
    if plain := {name: body[name] for name in COLUMNS if name in body}:
        first = next(iter(plain))
        if "ohlcv" in body:
            raise invalid(first, "is a column: give it in ohlcv, or no ohlcv")
        full = _without(body, *plain, "symbol", instead_of="panels")
        full["panels"] = [{"symbol": body.get("symbol"), **plain}]
        names = {f"panels[0].{name}": name for name in COLUMNS} | {"panels[0].symbol": "symbol", "panels[0]": first}
    elif "ohlcv" in body:
        columns = body["ohlcv"]
        if not isinstance(columns, dict):
            raise invalid("ohlcv", f"must be an object of columns: {', '.join(COLUMNS)}")
        full = _without(body, "ohlcv", "symbol", instead_of="panels")
        full["panels"] = [{"symbol": body.get("symbol"), **columns}]
        names = {"panels[0]": "ohlcv", "panels[0].symbol": "symbol"}
    specs = body.get("indicators")
    if isinstance(specs, list):
        decode.check_length(_field("ComputeIndicators", "indicators"), specs, "indicators")
        full["indicators"] = [
            _indicator(spec, f"indicators[{at}]") if isinstance(spec, str) else spec for at, spec in enumerate(specs)
        ]
        names |= {
            f"indicators[{at}].name": f"indicators[{at}]" for at, spec in enumerate(specs) if isinstance(spec, str)
        }
    return full, names


def _indicator(text: str, path: str) -> dict[str, Any]:
    """An indicator as text, such as "RSI" or "SMA:timeperiod=5", as a message. Raises InvalidRequestError."""
    name, colon, rest = text.partition(":")
    if not colon:
        return {"name": name}
    params = {}
    for pair in rest.split(","):
        key, _, value = pair.partition("=")
        try:
            params[key.strip()] = number = float(value)
        except ValueError:
            number = math.nan
        if not key.strip() or not math.isfinite(number):
            raise invalid(path, "must be NAME or NAME:parameter=number,parameter=number")
    return {"name": name.strip(), "params": params}


def analyze(body: Body) -> tuple[dict[str, Any], Names]:
    """Expand the short form of each part."""
    full, names = dict(body), Names()
    for part, expand in _PARTS.items():
        if isinstance(given := body.get(part), dict):
            try:
                full[part], inside = expand(given)
            except InvalidRequestError as error:
                raise InvalidRequestError(
                    [replace(one, field=f"{part}.{one.field}") for one in error.violations]
                ) from None
            # Paths of both kinds: an error of the whole request begins with the part, an error in a part's answer
            # does not.
            names |= inside | {f"{part}.{path}": f"{part}.{said}" for path, said in inside.items()}
    return full, names


_PARTS: dict[str, Callable[[Body], tuple[dict[str, Any], Names]]] = {
    "predict": predict,
    "sentiment": sentiment,
    "indicators": indicators,
}


def _check_names(body: Body, rpc: str, *short: str) -> None:
    """Refuse the first name that is neither a field of the request nor of its short form."""
    fields: Any = METHODS[rpc].request.DESCRIPTOR
    for name in body:
        if not (name in short or name in fields.fields_by_name or name in fields.fields_by_camelcase_name):
            known = dict.fromkeys((*fields.fields_by_name, *short))
            what = f"is not a field; there are: {', '.join(known)}; an example: {_EXAMPLES[rpc]}"
            raise invalid(name[:_LONGEST_NAME], what)


def _field(rpc: str, name: str) -> FieldDescriptor:
    fields: Any = METHODS[rpc].request.DESCRIPTOR.fields_by_name
    return cast("FieldDescriptor", fields[name])


def _without(body: Body, *names: str, instead_of: str = "") -> dict[str, Any]:
    """The body without the names of a short form, the first of which stands instead of a field."""
    if instead_of in body:
        raise invalid(names[0], f"is a short form of {instead_of}: give one of the two")
    return {name: value for name, value in body.items() if name not in names}


def invalid(field: str, description: str) -> InvalidRequestError:
    """An InvalidRequestError for one field."""
    return InvalidRequestError([Violation(field, description, "json")])
