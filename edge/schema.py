"""The OpenAPI description of requests and answers, made from the contract's descriptors.

Owns the JSON Schema of messages (limits included), of the short forms, of KServe's types and of problem documents, so
that a limit of the .proto files is written nowhere else.
"""

from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.rpc import status_pb2

from edge import kserve, problem
from market_inference.contract.json_form import forms
from market_inference.contract.methods import METHODS, field_rules, most_items

Schema = dict[str, Any]
JSON: Final = "application/json"
_EXAMPLES: Final[dict[str, Schema]] = {
    "Predict": {"symbol": "AAPL", "time_series": [100 + (at * 7) % 11 for at in range(40)], "horizon": 5},
    "AnalyzeSentiment": {"texts": ["Chipmaker lifts full-year guidance", "Regulator opens probe into lender"]},
    "ComputeIndicators": {
        "ohlcv": {"close": [100 + (at * 7) % 11 for at in range(40)]},
        "indicators": ["RSI", {"name": "SMA", "params": {"timeperiod": 5}, "last": 3}],
    },
    "Analyze": {
        "sentiment": {"text": "Profit rose sharply"},
        "predict": {"time_series": list(range(1, 41)), "horizon": 3},
    },
}
_TEXT: Final[Schema] = {"type": "string"}
_NUMBER: Final[Schema] = {"type": "number"}
_INTEGER: Final[Schema] = {"type": "integer"}
_OBJECT: Final[Schema] = {"type": "object"}
_SYMBOL: Final[Schema] = {"type": "string", "maxLength": 64}
TABLE_CONTENT: Final[Schema] = {
    "text/csv": {"schema": _TEXT},
    "application/vnd.apache.arrow.stream": {"schema": {"type": "string", "format": "binary"}},
}
_BY_NAME: Final[Schema] = {
    name: {"type": "object", "additionalProperties": {"type": "array", "items": {"type": ["number", "null"]}}}
    for name in kserve.COVARIATES
}


def _object(properties: Schema, *required: str, closed: bool = False) -> Schema:
    """An object; `closed`: without other properties."""
    made = {"type": "object", "properties": properties} | ({"required": list(required)} if required else {})
    return made | ({"additionalProperties": False} if closed else {})


def _list(items: Schema, **limits: int) -> Schema:
    return {"type": "array", "items": items, **limits}


def _body(schema: Schema, example: Schema) -> Schema:
    """The part of an operation for a request in JSON."""
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema, "example": example}}}}


def request(kind: Any) -> Schema:
    """The JSON form of a request message."""
    return _object({field.name: _field(field, answer=False) for field in kind.fields}, closed=True)


def answer(kind: Any) -> Schema:
    """The JSON form of an answer message: every field present, errors as text and type."""
    properties: Schema = {}
    for field in kind.fields:
        if field.message_type is not None and field.message_type.full_name == status_pb2.Status.DESCRIPTOR.full_name:
            properties |= {field.name: _TEXT, f"{field.name}_type": _TEXT}
        else:
            properties[field.name] = _field(field, answer=True)
    return _object(properties)


def _field(field: Any, *, answer: bool) -> Schema:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return _OBJECT | {"additionalProperties": _one(field.message_type.fields_by_name["value"], answer=answer)}
    if not field.is_repeated:
        return _one(field, answer=answer)
    rules = field_rules(field).repeated
    limits = {"minItems": rules.min_items, "maxItems": rules.max_items}
    return _list(_one(field, answer=answer), **{name: most for name, most in limits.items() if most and not answer})


def _one(field: Any, *, answer: bool) -> Schema:
    """One value of a field."""
    rules = field_rules(field)
    if field.message_type is not None:
        if field.message_type.full_name == "google.protobuf.Timestamp":
            return _OBJECT
        return _answered(field.message_type) if answer else request(field.message_type)
    if field.enum_type is not None:
        return _TEXT
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        own = rules.repeated.items.double if field.is_repeated else rules.double
        bounds = {} if answer else _bounds(own, {"gt": "exclusiveMinimum", "lt": "exclusiveMaximum"})
        return ({"type": ["number", "null"]} if answer else _NUMBER) | bounds
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        most = (rules.repeated.items.string if field.is_repeated else rules.string).max_len
        return _TEXT | ({"maxLength": most} if most and not answer else {})
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return {"type": "boolean"}
    bounds = {} if answer else _bounds(rules.uint32, {"gte": "minimum", "lte": "maximum"})
    return _INTEGER | bounds


_answered = answer


def _bounds(rules: Any, keys: dict[str, str]) -> Schema:
    present = {field.name: value for field, value in rules.ListFields()}
    return {word: present[name] for name, word in keys.items() if name in present}


def _column(field: str, kind: str) -> Schema:
    """The schema of a column such as Series.values."""
    message: Any = METHODS[kind].request.DESCRIPTOR
    items = next(one for one in message.fields if one.is_repeated and one.message_type is not None)
    return _field(items.message_type.fields_by_name[field], answer=False)


def _ohlcv() -> Schema:
    columns = {name: _column(name, "ComputeIndicators") for name in forms.COLUMNS}
    return _object(columns, "close", closed=True)


def _short(rpc: str) -> Schema:
    """The message's form and its short form in one object: fields of the one or of the other. Raises KeyError."""
    made = request(METHODS[rpc].request.DESCRIPTOR)
    own: Schema = made["properties"]
    if rpc == "Predict":
        values = _column("values", rpc)
        own |= {"time_series": values, "values": values, "symbol": _SYMBOL} | _BY_NAME
        flat = own["series"]["items"]["properties"]
        flat |= {name: {"anyOf": [flat[name], by_name]} for name, by_name in _BY_NAME.items()}
        own["series"]["items"] = {"anyOf": [own["series"]["items"], values]}
        own["series"] = {"anyOf": [own["series"], values]}
    elif rpc == "AnalyzeSentiment":
        own |= {"text": own["texts"]["items"]}
    elif rpc == "ComputeIndicators":
        own |= {"ohlcv": _ohlcv(), "symbol": _SYMBOL} | _ohlcv()["properties"]
        own["indicators"]["items"] = {"anyOf": [_TEXT, own["indicators"]["items"]]}
    elif rpc == "Analyze":
        parts = {"predict": "Predict", "sentiment": "AnalyzeSentiment", "indicators": "ComputeIndicators"}
        own |= {part: _short(name) for part, name in parts.items()}
    else:
        raise KeyError(f"edge/schema.py has no short form of {rpc}")
    return made


def operation(rpc: str, *, tables: bool) -> Schema:
    """The request's part of an operation."""
    body = _short(rpc)
    body["properties"] |= {
        "timeout": {"type": "number", "exclusiveMinimum": 0, "description": "seconds"},
        "priority": {"type": "string", "enum": ["interactive", "batch"]},
        "request_id": {"type": "string", "maxLength": 128},
    }
    made = _body(body, _EXAMPLES[rpc])
    if tables:
        made["requestBody"]["content"] |= TABLE_CONTENT
        made["parameters"] = [
            {"name": name, "in": "query", "schema": _TEXT, "description": f"with a table as body: {text}"}
            for name, text in TABLE_PARAMETERS[rpc].items()
        ]
    return made


FILE_PARAMETERS: Final = {
    "symbol": "one of several instruments of the file",
    "column": "the column of the values, by default the close",
    "date_format": "such as %d.%m.%Y, where the dates are ambiguous",
    "decimal": "the decimal separator",
    "delimiter": "the separator of columns",
}
TABLE_PARAMETERS: Final = {
    "Predict": {
        "horizon": "steps ahead, 10 by default",
        "quantiles": "levels, separated by commas",
        "model": "a model of /v1/models",
        "period": "values of one cycle of the volatility",
        "covariates": "other columns that the model reads, separated by commas",
        **FILE_PARAMETERS,
    },
    "AnalyzeSentiment": {"column": "the column of the texts", "model": "a model of /v1/models"},
    "ComputeIndicators": {
        "indicators": "such as RSI,MACD:fastperiod=8,slowperiod=20,BBANDS; separated by commas or spaces",
        "last": "only the newest values",
        **{name: text for name, text in FILE_PARAMETERS.items() if name != "column"},
    },
}

_PROBLEM: Final = ("type", "title", "status", "detail", "reason", "code", "request_id")
_NOTES: Final = "by symbol: what the reader of a table decided; absent where there is nothing to tell"
_VIOLATION: Final = _object({"field": _TEXT, "description": _TEXT, "rule": _TEXT, "limit": _NUMBER})
PROBLEM: Final[Schema] = _object(
    {**dict.fromkeys(_PROBLEM, _TEXT), "status": _INTEGER, "retry_after": _NUMBER, "errors": _list(_VIOLATION)},
    *_PROBLEM,
)


def problems() -> dict[int | str, Schema]:
    """The answers to failures."""
    content = {problem.MEDIA_TYPE: {"schema": PROBLEM}}
    return {"default": {"description": "a failure, as RFC 9457 says", "content": content}}


def responses(kind: type[Message], *, tables: bool = False) -> dict[int | str, Schema]:
    """The answers of an operation; `tables`: the request may be a table."""
    made = answer(kind.DESCRIPTOR)
    if tables:
        made["properties"]["notes"] = _OBJECT | {"additionalProperties": _list(_TEXT), "description": _NOTES}
    good = {"description": "the answer", "content": {JSON: {"schema": made}}}
    return {200: good, **problems()}


def watch_operation() -> Schema:
    """The opening of a live session, with the bars of a replay."""
    fields = METHODS["Predict"].request.DESCRIPTOR.fields_by_name
    forecast = {name: _field(fields[name], answer=False) for name in ("horizon", "quantiles", "model", "period")}
    bar = {**dict.fromkeys(forms.COLUMNS, _NUMBER), "time": {"type": ["string", "integer"]}}
    own = {
        "symbol": _SYMBOL,
        "ohlcv": _ohlcv(),
        "times": _list({"type": "string", "format": "date-time"}),
        "bars": _list(_object(bar), maxItems=50),
        "indicators": _list(_TEXT),
        "forecast": _object(
            {**forecast, "every": {"type": "integer", "minimum": 0}, "by_time": {"type": "boolean"}}, "horizon"
        ),
        "delivery": {"type": "string", "enum": ["lossless", "latest"]},
        "keep": {"type": "integer", "minimum": 1, "maximum": 10_000},
        "interval": {"type": "number", "minimum": 0, "maximum": 0.01},
    }
    example = {
        "symbol": "AAPL",
        "ohlcv": {"close": _EXAMPLES["Predict"]["time_series"]},
        "bars": [{"close": 104}, {"close": 105.5}],
        "indicators": ["RSI", "SMA:timeperiod=5"],
    }
    return _body(_object(own, "ohlcv"), example)


def kserve_operation() -> Schema:
    """A ForecastRequest of KServe."""
    fields = METHODS["Predict"].request.DESCRIPTOR.fields_by_name
    one = {
        "type": {"type": "string", "enum": [kserve.UNIVARIATE, kserve.MULTIVARIATE]},
        "name": _SYMBOL,
        "series": {"anyOf": [_column("values", "Predict"), _list(_list(_NUMBER))]},
        **_BY_NAME,
        "frequency": {"type": "string", "enum": list(kserve.FREQUENCIES)},
        "start_timestamp": {"type": "string", "format": "date-time"},
    }
    inputs = _object(one, "type", "name", "series", "frequency")
    own = {
        "model": {"type": "string", "maxLength": 128},
        "inputs": _list(inputs, minItems=1, maxItems=most_items(METHODS["Predict"].request, "series")),
        "options": _object({name: _field(fields[name], answer=False) for name in kserve.OPTIONS}, "horizon"),
        "metadata": _OBJECT,
    }
    example = {
        "type": kserve.UNIVARIATE,
        "name": "AAPL",
        "series": _EXAMPLES["Predict"]["time_series"],
        "frequency": "D",
        "start_timestamp": "2026-01-01T00:00:00",
    }
    asked = {"model": "auto", "inputs": [example], "options": {"horizon": 5, "quantiles": [0.1, 0.5, 0.9]}}
    return _body(_object(own, "model", "inputs", "options"), asked)


def kserve_responses() -> dict[int | str, Schema]:
    """A ForecastResponse of KServe."""
    own = {
        "id": _TEXT,
        "created_at": _INTEGER,
        "status": {"type": "string", "enum": ["completed", "partial", "error"]},
        "model": _TEXT,
        "outputs": _list(_OBJECT),
    }
    good = {"description": "the forecasts", "content": {JSON: {"schema": _object(own, *own)}}}
    return {200: good, **problems()}
