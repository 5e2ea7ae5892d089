"""A live session over HTTP: the opening, the bars, the updates, as JSON.

Owns the form of the messages, and the life of one session between its bars and its updates. Memory of a reader that
does not read is bounded: a few updates here (upstream.py) and the socket's buffers; the flow control of HTTP/2 holds
the gateway's session back.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from google.rpc import code_pb2, error_details_pb2, status_pb2

from edge import problem
from edge.caller import Caller
from market_inference.client.forecast import Forecast
from market_inference.client.session import ForecastEvery, Record, Update
from market_inference.client.warning import AnswerWarning
from market_inference.client.watch import AsyncWatch
from market_inference.contract.errors import RemoteError, ServiceError
from market_inference.contract.generated import inference_pb2
from market_inference.contract.json_form import decode, encode, options
from market_inference.contract.json_form.forms import COLUMNS, invalid
from market_inference.errors import ArgumentError, MarketInferenceError

_FIELDS: Final = (
    "symbol", "ohlcv", "times", "indicators", "forecast", "delivery", "keep", "bars", "interval", "api_key", "priority",
)  # fmt: skip
_FORECAST: Final = ("horizon", "quantiles", "every", "model", "period", "by_time")
_OPEN: Final[Any] = inference_pb2.WatchOpen.DESCRIPTOR.fields_by_name
_COLUMNS: Final[Any] = inference_pb2.Panel.DESCRIPTOR.fields_by_name
_KEEP: Final = 500
_MOST_INTERVAL: Final = 60.0


@dataclass(frozen=True, slots=True)
class Opening:
    """`bars`: bars that came with the opening. `interval`: seconds between two of these bars."""

    record: Record
    latest: bool
    bars: list[Any]
    interval: float


def opening(body: Any, caller: Caller) -> Opening:
    """Read the message that opens a session. Raises InvalidRequestError, ArgumentError."""
    if not isinstance(body, dict):
        raise invalid("", "the opening must be a JSON object")
    if unknown := [name for name in body if name not in _FIELDS]:
        raise invalid(unknown[0][:64], f"is not a field of watch; there are: {', '.join(_FIELDS)}")
    if body.get("priority") is not None:
        caller.priority = options.priority(body["priority"])
    delivery: Any = body.get("delivery") or "lossless"
    bars = body.get("bars") or []
    if not isinstance(bars, list):
        raise invalid("bars", "must be a list of bars")
    if isinstance(body.get("indicators"), list):
        decode.check_length(_OPEN["indicators"], body["indicators"], "indicators")
    record = Record(
        body.get("symbol") or "",
        _history(body.get("ohlcv")),
        _times(body.get("times")),
        body.get("indicators") or (),
        _forecast(body.get("forecast")),
        delivery,
        _KEEP if body.get("keep") is None else body["keep"],
    )
    return Opening(record, delivery == "latest", bars, _interval(body.get("interval")))


def _history(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict) or not isinstance(given.get("close"), list):
        raise invalid("ohlcv", f"must be an object of columns, close among them: {', '.join(COLUMNS)}")
    if unknown := [name for name in given if name not in COLUMNS]:
        raise invalid(f"ohlcv.{unknown[0][:64]}", f"is not a column; there are: {', '.join(COLUMNS)}")
    for name, column in given.items():
        if not isinstance(column, list) or not set(map(type, column)) <= {int, float}:
            raise invalid(f"ohlcv.{name}", "must be a list of numbers")
        decode.check_length(_COLUMNS[name], column, f"ohlcv.{name}")
    return {name: np.array(column, dtype=np.float64) for name, column in given.items()}


def _times(given: Any) -> Any:
    if given is None:
        return None
    if not isinstance(given, list) or not set(map(type, given)) <= {str, int}:
        raise invalid("times", "must be a list of ISO 8601 instants, one for each bar")
    decode.check_length(_OPEN["times"], given, "times")
    return given


def _forecast(given: Any) -> ForecastEvery | None:
    if given is None:
        return None
    if not isinstance(given, dict) or "horizon" not in given:
        raise invalid("forecast", "must be an object with a horizon")
    if unknown := [name for name in given if name not in _FORECAST]:
        raise invalid(f"forecast.{unknown[0][:64]}", f"is not a field; there are: {', '.join(_FORECAST)}")
    return ForecastEvery(**{name: value for name, value in given.items() if value is not None})


def _interval(given: Any) -> float:
    if given is None:
        return 0.0
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= _MOST_INTERVAL:
        raise invalid("interval", f"must be seconds from 0 to {_MOST_INTERVAL:g}")
    return float(given)


async def paced(found: Opening) -> AsyncIterator[Any]:
    """The bars that came with the opening, an interval apart."""
    for bar in found.bars:
        yield bar
        if found.interval:
            await asyncio.sleep(found.interval)


async def updates(
    session: AsyncWatch, bars: AsyncIterator[Any], caller: Caller
) -> AsyncGenerator[dict[str, Any], None]:
    """The session's updates as JSON values, until every bar is answered. Raises ServiceError, ArgumentError."""
    feeding = asyncio.create_task(_feed(session, bars))
    try:
        async for update in session:
            yield shown(update, caller)
        await feeding
    except ArgumentError:
        raise
    except MarketInferenceError as ended:
        raise RemoteError(status_of(ended)) from None
    finally:
        feeding.cancel()
        with contextlib.suppress(asyncio.CancelledError, ServiceError, MarketInferenceError):
            await feeding


async def _feed(session: AsyncWatch, bars: AsyncIterator[Any]) -> None:
    """Send the bars. A bar that has no form ends the session after the bars before it."""
    try:
        async for given in bars:
            await _send(session, given)
    finally:
        await session.finish()


async def _send(session: AsyncWatch, given: Any) -> None:
    kind = next((name for name in ("correct", "bars", "bar") if isinstance(given, dict) and name in given), "")
    if kind and len(given) > 1:
        raise invalid(kind, "must be the only field of a message")
    inside = given[kind] if kind else given
    if kind == "correct":
        await session.correct(_bar(inside, kind))
    elif kind == "bars":
        if not isinstance(inside, list):
            raise invalid(kind, "must be a list of bars")
        for one in inside:
            await session.append(_bar(one, kind))
    else:
        await session.append(_bar(inside, "bar"))


def _bar(given: Any, field: str) -> Any:
    """A close, or an object of columns with an optional time. Raises InvalidRequestError."""
    if isinstance(given, dict):
        unknown = [name for name in given if name not in (*COLUMNS, "time")]
        if not unknown and all(type(value) in (int, float) for name, value in given.items() if name != "time"):
            return given
    elif type(given) in (int, float):
        return given
    raise invalid(field, f"must be a close, or an object of numbers named {', '.join(COLUMNS)}, with a time")


def shown(update: Update, caller: Caller) -> dict[str, Any]:
    """An update as JSON values: NaN becomes null, an error becomes a problem document."""
    found: dict[str, Any] = {"sequence": update.sequence}
    if update.time is not None:
        found["time"] = str(update.time)
    values = list(update.values_by_name.values())
    found["values"] = dict(zip(update.values_by_name, encode.numbers(values), strict=True))
    if update.forecast is not None:
        found["forecast"] = _forecasted(update.forecast)
    if update.error is not None:
        found["error"] = problem.document(status_of(update.error, caller.request_id), caller.names)
    return found


def _forecasted(forecast: Forecast) -> dict[str, Any]:
    """As in the answer of /v1/predict: `quantiles` is row-major [horizon, quantile_levels]."""
    coverage = forecast.coverage
    [measured] = encode.numbers([coverage.measured])
    return {
        "point": encode.numbers(forecast.point),
        "quantiles": encode.numbers(np.ravel(forecast.quantiles)),
        "quantile_levels": encode.numbers(forecast.levels),
        "coverage": {
            "nominal": coverage.nominal,
            "measured": measured,
            "origins": coverage.origins,
            "phase_measured": encode.numbers(coverage.by_phase),
            "phase_origins": list(coverage.phase_origins),
            "phase_ahead": list(coverage.phase_ahead),
        },
        "gate": forecast.gate,
        "logs": forecast.logs,
        "context": forecast.context,
        "warnings": [_warning(one) for one in forecast.warnings],
        "model": forecast.model,
        "model_version": forecast.model_version,
    }


def _warning(warning: AnswerWarning) -> dict[str, Any]:
    evidence = [{"name": name, "values": encode.numbers(values)} for name, values in warning.evidence.items()]
    return {"code": warning.code.lower(), "message": warning.message, "evidence": evidence}


def status_of(error: MarketInferenceError, request_id: str = "") -> status_pb2.Status:
    """The client's typed error as the status from which it was made."""
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code or "INTERNAL"), message=error.message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=error.reason or error.code, domain="market-inference"))
    if error.violations:
        bad = error_details_pb2.BadRequest()
        for field, description in error.violations:
            bad.field_violations.add(field=field, description=description)
        status.details.add().Pack(bad)
    status.details.add().Pack(error_details_pb2.RequestInfo(request_id=request_id or error.request_id))
    return status


def opened(caller: Caller) -> Mapping[str, Any]:
    """The first message to the client."""
    return {"opened": {"request_id": caller.request_id}}
