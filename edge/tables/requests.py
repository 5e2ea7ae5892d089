"""Requests whose body is a table: the bars of files as vendors write them, and columns of texts.

Owns the way from a table and the query's parameters to the contract's message. market_inference/client/files reads the
files, with its notes and refusals.
"""

import asyncio
import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

import numpy as np
from google.protobuf.message import Message
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from edge import body as bodies
from edge.caller import Caller
from edge.parts import Parts
from edge.schema import FILE_PARAMETERS, TABLE_PARAMETERS
from edge.tables import columns, hints, size
from edge.tables.arrow import MOST_COLUMNS
from edge.tables.columns import ARROW, CSV, Notes, Times
from market_inference.client import arrays
from market_inference.client.files import Bars, FileError, Options, read
from market_inference.client.frames.dates import following
from market_inference.client.indicator import columns_read, read_all
from market_inference.contract.errors import InvalidRequestError, Violation
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.json_form.decode import check_length
from market_inference.contract.methods import field_rules, most_items
from market_inference.errors import ArgumentError

TABLES: Final = ("Predict", "AnalyzeSentiment", "ComputeIndicators")
Query = Mapping[str, str]
Value = TypeVar("Value")
_TEXTS: Final = ("text", "headline", "title", "news", "body", "content")
_MOST_TEXT: Final = 1 << 17
_MOST_TEXTS: Final = most_items(pb.AnalyzeSentimentRequest, "texts")
_MOST_STEPS: Final = field_rules(pb.PredictRequest.DESCRIPTOR.fields_by_name["horizon"]).uint32.lte
_MOST_SERIES: Final = most_items(pb.PredictRequest, "series")
# The edge takes the bytes as they are: a small compressed file can hold any number of bytes.
_COMPRESSED: Final = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"PK\x03\x04", b"PAR1")
# Between indicators; a comma before `parameter=number` is one within an indicator.
_NEXT_INDICATOR: Final = re.compile(r";|,(?![^,;:=\s]*=)")
# Reading a large file takes a core for a second; more at once would only take longer.
_READERS: Final = 2
_TABLE: Final = 10
"""The memory of an answer as a table for a byte of its message; a forecast's rows with one quantile take 12."""


def sized(raw: bytes, kind: str) -> size.Size:
    """The size of a table before it is read. Raises InvalidRequestError above the limits of rows and cells."""
    try:
        return size.of(raw, kind, bodies.weight(raw))
    except ValueError as error:
        raise invalid("body", f"is not understood: {error}") from None


class Tables:
    """Reads and writes tables in threads, a few at a time, and one table of a client at a time."""

    def __init__(self) -> None:
        self._room = asyncio.Semaphore(_READERS)
        # By client, as long as a request holds or awaits the lock.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def bars(self, raw: bytes, kind: str, query: QueryParams, caller: Caller) -> dict[str, Bars]:
        """The instruments of a table of bars. Raises InvalidRequestError, NoArrowError."""
        check_query(query, FILE_PARAMETERS)
        return await self._in_turn(caller, bars, raw, kind, query)

    async def _in_turn(self, caller: Caller, work: Callable[..., Value], *given: Any) -> Value:
        """Run `work` in a thread. Of each client one request at most waits for a free thread, in order of arrival."""
        async with self._locks.setdefault(caller.counted_as or "", asyncio.Lock()), self._room:
            return await asyncio.to_thread(work, *given)

    async def read(
        self, rpc: str, raw: bytes, kind: str, query: QueryParams, caller: Caller
    ) -> tuple[Message, Times, Notes]:
        """The message of a table, the times of the answer's rows, and the reader's notes.

        Raises InvalidRequestError, NoArrowError.
        """
        check_query(query, TABLE_PARAMETERS[rpc])
        if rpc == "AnalyzeSentiment":
            caller.names = {"texts": "row"}
            return await self._in_turn(caller, _sentiment, raw, kind, query), {}, {}
        found = await self._in_turn(caller, bars, raw, kind, query)
        caller.names = {}
        # A hundred thousand rows take tens of milliseconds, which the event loop does not have.
        message, times = await asyncio.to_thread(_message, rpc, found, query)
        return message, times, {symbol: [*map(hints.of_query, one.notes)] for symbol, one in found.items() if one.notes}

    async def answer(
        self, request: Request, parts: Parts, response: Message, times: Times, notes: Notes, kind: str
    ) -> Response:
        """The response as a table. Raises MediaTypeError, NoArrowError, OverloadedError."""
        caller: Caller = request.state.caller
        is_large = caller.answer_held > bodies.THREAD_BYTES
        parts.hold(request, _TABLE * caller.answer_held)
        found = await asyncio.to_thread(columns.of, response, times, caller.names)
        if notes:
            joined = {symbol: " | ".join(one) for symbol, one in notes.items()}
            found = {**found, "notes": [*map(joined.get, found["symbol"])]}
        if kind == CSV and is_large:
            return await parts.made(request, columns.csv_lines(found), kind)
        return parts.whole(request, await asyncio.to_thread(columns.write, found, kind), kind)


def check_query(query: QueryParams, known: Iterable[str]) -> None:
    """Raises InvalidRequestError for a parameter that would be ignored."""
    for name, count in Counter(name for name, _ in query.multi_items()).items():
        if name not in known:
            raise invalid(name[:64], f"is not a parameter; there are: {', '.join(known)}")
        if count > 1:
            raise invalid(name, "stands twice")


def bars(raw: bytes, kind: str, query: Query) -> dict[str, Bars]:
    """The instruments of a table of bars. Raises InvalidRequestError, NoArrowError."""
    if raw.startswith(_COMPRESSED):
        raise invalid("body", "compressed files and parquet are not read here: send plain text or an Arrow stream")
    try:
        data = columns.parquet_of(raw) if kind == ARROW else raw
        options = Options(
            {"close": query["column"]} if query.get("column") else {},
            query.get("delimiter") or None,
            query.get("decimal") or None,
            None,
            query.get("date_format") or None,
            query.get("symbol") or None,
        )
        return read(io.BytesIO(data), options, instruments=_MOST_SERIES, most_columns=MOST_COLUMNS)
    except FileError as error:
        raise invalid("body", f"is not understood: {hints.of_query(str(error))}") from None
    except ValueError as error:
        raise invalid("body", f"is not understood: {error}") from None


def _message(rpc: str, found: Mapping[str, Bars], query: Query) -> tuple[Message, Times]:
    dated = {symbol: one.times for symbol, one in found.items() if one.times is not None}
    if rpc == "ComputeIndicators":
        return _indicators(found, query), {symbol: columns.iso(rows) for symbol, rows in dated.items()}
    message = _predict(found, query)
    steps = {symbol: following(rows, min(message.horizon, _MOST_STEPS)) for symbol, rows in dated.items()}
    return message, {symbol: columns.iso(labels) for symbol, labels in steps.items() if labels is not None}


def _predict(found: Mapping[str, Bars], query: Query) -> pb.PredictRequest:
    message = pb.PredictRequest(
        horizon=_whole(query, "horizon", 10), model=query.get("model", ""), period=_whole(query, "period", 0)
    )
    names = [*filter(None, query.get("covariates", "").split(","))]
    check_length(pb.PredictRequest.DESCRIPTOR.fields_by_name["covariates"], names, "covariates")
    message.covariates.extend(names)
    if query.get("quantiles"):
        message.quantiles.extend(_numbers(query, "quantiles"))
    for symbol, one in found.items():
        try:
            values = one.column("close")
            beside = [one.column(name) for name in message.covariates]
        except FileError as error:
            raise invalid("body", f"is not understood: {hints.of_query(str(error))}") from None
        series = message.series.add(symbol=symbol)
        arrays.write(series, "values", values)
        if beside:
            arrays.write(series, "past_covariates", np.concatenate(beside))
    return message


def _indicators(found: Mapping[str, Bars], query: Query) -> pb.ComputeIndicatorsRequest:
    try:
        asked = read_all(_NEXT_INDICATOR.sub(" ", query.get("indicators") or "RSI").split())
    except ArgumentError as error:
        raise invalid("indicators", error.message) from None
    message = pb.ComputeIndicatorsRequest()
    for spec in asked:
        message.indicators.add(name=spec.name, params=spec.params, last=_whole(query, "last", 0))
    needed = columns_read(asked) | {"close"}
    for symbol, one in found.items():
        panel = message.panels.add(symbol=symbol)
        for name in needed & set(one):
            arrays.write(panel, name, one[name])
    return message


def _sentiment(raw: bytes, kind: str, query: Query) -> pb.AnalyzeSentimentRequest:
    try:
        texts = _arrow_texts(raw, query) if kind == ARROW else _csv_texts(raw, query)
    except (ValueError, csv.Error) as error:
        raise invalid("body", f"is not understood: {error}") from None
    return pb.AnalyzeSentimentRequest(texts=texts, model=query.get("model", ""))


def _csv_texts(raw: bytes, query: Query) -> list[str]:
    """The column of texts: the named one, a known name, or the only column of a table with or without a header."""
    csv.field_size_limit(_MOST_TEXT)
    lines = csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline=""))
    full = (row for row in lines if any(map(str.strip, row)))
    # Of more rows than a request may have, and a header, the number is enough.
    rows = list(islice(full, _MOST_TEXTS + 1))
    further = sum(1 for _ in full)
    if not rows:
        raise ValueError("the table is empty")
    header = [cell.strip().lower() for cell in rows[0]]
    wanted = (query.get("column") or "").strip().lower()
    known = [wanted] if wanted else [name for name in _TEXTS if name in header]
    if known and known[0] in header:
        at = header.index(known[0])
        _check_count(len(rows) - 1 + further)
        return [row[at] if at < len(row) else "" for row in rows[1:]]
    if wanted or len(header) > 1:
        raise ValueError(f"no column of texts among {', '.join(rows[0])[:200]}: give column=NAME")
    _check_count(len(rows) + further)
    return [row[0] for row in rows]


def _check_count(texts: int) -> None:
    """Raises InvalidRequestError."""
    check_length(pb.AnalyzeSentimentRequest.DESCRIPTOR.fields_by_name["texts"], range(texts), "texts")


def _arrow_texts(raw: bytes, query: Query) -> list[str]:
    table: dict[str, list[Any]] = columns.read_arrow(raw)
    wanted = query.get("column") or next((name for name in table if name.lower() in _TEXTS), "")
    if wanted not in table and len(table) == 1:
        [wanted] = table
    if wanted not in table:
        raise ValueError(f"no column of texts among {', '.join(table)[:200]}: give column=NAME")
    _check_count(len(table[wanted]))
    return ["" if text is None else str(text) for text in table[wanted]]


def _whole(query: Query, name: str, default: int) -> int:
    given = query.get(name)
    if given in (None, ""):
        return default
    if given is None or not (given.isascii() and given.isdecimal() and len(given) <= 10) or int(given) >= 1 << 32:
        raise invalid(name, f"must be a whole number (got {str(given)[:32]!r})")
    return int(given)


def _numbers(query: Query, name: str) -> list[float]:
    try:
        found = [float(part) for part in query[name].split(",")]
    except ValueError:
        raise invalid(name, "must be numbers separated by commas") from None
    if not np.isfinite(found).all():
        raise invalid(name, "must be finite numbers")
    return found


def invalid(field: str, description: str) -> InvalidRequestError:
    """An InvalidRequestError for the body or for a parameter of the query."""
    return InvalidRequestError([Violation(field, description, "table")])
