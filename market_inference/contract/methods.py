"""The table of public RPCs: one row per RPC, with everything that differs between RPCs.

Owns the rows. Names, message types, byte limits and scopes come from the descriptors; a limit is written in the .proto
files only. A row that is missing, or that names a field which does not exist, fails when this module is imported.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from market_inference.contract import answer_size, units
from market_inference.contract.generated import (
    exchange_pb2,
    inference_pb2,
    options_pb2,
    requests_pb2,
    validate_pb2,
)

SERVICE: Final = inference_pb2.DESCRIPTOR.services_by_name["MarketInferenceService"]


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC of the public service."""

    name: str
    path: str
    request: type[Message]
    response: type[Message]
    max_request_bytes: int
    max_further_request_bytes: int
    """The largest message of a call after the first one; 0 where all messages have the same limit."""
    max_answer_bytes: int
    """The largest answer that a request may ask for; 0 for no limit."""
    scope: str
    streams: bool
    """The client or the service sends several messages."""
    field: str
    """The RPC's field in Envelope, StreamItem and StreamResult; empty when a replica is never asked for the RPC."""
    streamable: bool
    """A request of a Stream call may be of this RPC."""
    twin: type[Message]
    """The type that reads the request's columns of numbers as bytes (requests.proto), else `request` itself."""
    lists: tuple[tuple[str, str], ...]
    """The request's lists of items, each after the part of the request that has the list, "" for the request itself."""
    items: str
    """The request's list of items when the request is split into items, else empty."""
    answers: str
    """The response's list with one answer per item."""
    merged: bool
    """Calls that differ in nothing but their items may share a request to a replica."""
    action: str
    """The serverless action of the same meaning, or empty."""
    units: Callable[[Any], int]
    """Units of a request, read through `twin`."""
    answer_bytes: Callable[[Any], int]
    """The size of the answer to a request, read through `twin`."""


def _rows() -> dict[str, Method]:
    return {
        method.name: method
        for method in (
            _row(
                "Predict",
                "predict",
                units.predict,
                answer_size.predict,
                twin=requests_pb2.PredictColumns,
                items=("series", "forecasts"),
                merged=True,
            ),
            _row("AnalyzeSentiment", "sentiment", units.sentiment, answer_size.sentiments),
            _row(
                "ComputeIndicators",
                "indicators",
                units.indicators,
                answer_size.indicators,
                twin=requests_pb2.ComputeIndicatorsColumns,
                items=("panels", "panels"),
                merged=True,
            ),
            _row("Analyze", "analyze", units.analyze, answer_size.analyze, twin=requests_pb2.AnalyzeColumns),
            _row("Stream", "", units.stream, answer_size.small, twin=requests_pb2.StreamColumns),
            _row("Watch", "watch_open", units.watch, answer_size.small, action="watch"),
            _row("GetStatus", "status", units.status, answer_size.small, action="health"),
            _row("ListModels", "models", units.models, answer_size.small),
        )
    }


def _row(
    name: str,
    field: str,
    cost: Callable[[Any], int],
    answer_bytes: Callable[[Any], int],
    *,
    twin: type[Message] | None = None,
    items: tuple[str, str] = ("", ""),
    merged: bool = False,
    action: str | None = None,
) -> Method:
    """Complete a row from the descriptors. Raises KeyError for a name that the contract does not have."""
    descriptor = SERVICE.methods_by_name[name]
    rules = descriptor.GetOptions().Extensions[options_pb2.method]
    if field:
        _require(exchange_pb2.Envelope.DESCRIPTOR, field)
    if items[0]:
        _require(descriptor.input_type, items[0])
        _require(descriptor.output_type, items[1])
    request = GetMessageClass(descriptor.input_type)
    return Method(
        name=name,
        path=f"/{SERVICE.full_name}/{name}",
        request=request,
        response=GetMessageClass(descriptor.output_type),
        max_request_bytes=rules.max_request_bytes,
        max_further_request_bytes=rules.max_further_request_bytes,
        max_answer_bytes=rules.max_answer_bytes,
        scope=rules.scope,
        streams=descriptor.client_streaming or descriptor.server_streaming,
        field=field,
        streamable=field in inference_pb2.StreamItem.DESCRIPTOR.fields_by_name,
        twin=twin or request,
        lists=_lists(descriptor.input_type),
        items=items[0],
        answers=items[1],
        merged=merged,
        action=field if action is None else action,
        units=cost,
        answer_bytes=answer_bytes,
    )


def _lists(message: Descriptor) -> tuple[tuple[str, str], ...]:
    """The lists marked `(items) = true`, of a message and of its parts."""
    parts = [(field.name, field.message_type) for field in message.fields if field.message_type is not None]
    return tuple(
        (part, field.name)
        for part, kind in (("", message), *parts)
        for field in kind.fields
        if field.GetOptions().Extensions[options_pb2.items]
    )


def _require(message: Descriptor, field: str) -> None:
    if field not in message.fields_by_name:
        raise KeyError(f"{message.full_name} has no field {field!r}")


METHODS: Final = _rows()
if missing := set(SERVICE.methods_by_name) - set(METHODS):
    raise KeyError(f"market_inference/contract/methods.py has no row for: {', '.join(sorted(missing))}")
SCOPES: Final = tuple(sorted({method.scope for method in METHODS.values()}))
MAX_REQUEST_BYTES: Final = max(method.max_request_bytes for method in METHODS.values())
MAX_ANSWER_BYTES: Final = max(method.max_answer_bytes for method in METHODS.values())
BY_STREAM_FIELD: Final = {method.field: method for method in METHODS.values() if method.streamable}


@cache
def field_rules(field: FieldDescriptor) -> validate_pb2.FieldRules:
    """The protovalidate rules of a field."""
    return field.GetOptions().Extensions[validate_pb2.field]


def most_items(kind: type[Message], field: str) -> int:
    """The most elements of a list of a message."""
    return int(field_rules(kind.DESCRIPTOR.fields_by_name[field]).repeated.max_items)


@cache
def max_lookback(field: FieldDescriptor) -> int:
    """The largest lookback in bars for the indicators of a list; 0 for no limit."""
    limit: int = field.GetOptions().Extensions[options_pb2.max_lookback]
    return limit


@cache
def max_rows(field: FieldDescriptor) -> int:
    """The largest number of series and covariates of a group of the field; 0 for no limit."""
    limit: int = field.GetOptions().Extensions[options_pb2.max_rows]
    return limit


@cache
def column_rules(field: FieldDescriptor) -> options_pb2.ColumnRules:
    """The rules of a column of numbers, checked over the whole array."""
    return field.GetOptions().Extensions[options_pb2.column]
