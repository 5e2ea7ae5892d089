"""The end of a call: the result, or the error, as the caller gets it.

Owns the result of a unary call, the status of an error, the trailers, and the audit line of a refusal. Other log lines
and metrics are records.py's.
"""

import asyncio
import logging
import math
from collections.abc import Callable
from typing import NamedTuple

from google.rpc import status_pb2

from gateway.calls.call import Call, Outcome
from market_inference.contract import metadata
from market_inference.contract.errors import (
    CallCancelledError,
    InternalError,
    PermissionDeniedError,
    ServiceError,
    UnauthenticatedError,
    code_name,
    reason_of,
)
from runtime import logs

log = logging.getLogger("gateway.request")
_audit = logging.getLogger("gateway.audit")

Trailers = tuple[tuple[str, str | bytes], ...]


class Result(NamedTuple):
    """The result of a unary call: the response's bytes, or the status of the error, and the trailers of either."""

    response: bytes
    trailers: Trailers
    status: status_pb2.Status | None = None


class Ending(NamedTuple):
    """An outcome for log line and metrics: the name of the gRPC status code, and the reason of an error."""

    code: str = "OK"
    reason: str = ""


OK = Ending()
CANCELLED = Ending(CallCancelledError.reason, CallCancelledError.reason)


def of_status(status: status_pb2.Status) -> Ending:
    return Ending(code_name(status.code), reason_of(status))


def result(call: Call, outcome: Outcome, peer: Callable[[], str]) -> tuple[Result | None, Ending]:
    """The result of a unary call, None for a cancelled call, and the ending for the records."""
    if isinstance(outcome, bytes):
        return Result(outcome, trailers(call)), OK
    if isinstance(outcome, asyncio.CancelledError):
        return None, CANCELLED
    status = status_of(outcome, call, peer)
    return Result(b"", failure_trailers(call, status), status), of_status(status)


def status_of(error: BaseException, call: Call, peer: Callable[[], str] = str) -> status_pb2.Status:
    """The status that the caller gets. Of a bug the caller learns nothing; the log has the trace.

    `peer` gives the other end's address for the audit line of a refusal; a request of a Stream has none.
    """
    if not isinstance(error, ServiceError):
        log.error("bug", exc_info=error, extra=logs.fields(request_id=call.request_id, method=call.method.name))
        error = InternalError()
    if isinstance(error, UnauthenticatedError | PermissionDeniedError):
        audit(call, error, peer)
    # Cut the reference cycle of the error with the frames in its traceback, so that no garbage collection is needed.
    error.__traceback__ = None
    return error.status(call.request_id)


def audit(call: Call, error: ServiceError, peer: Callable[[], str]) -> None:
    """A line for a refusal of authentication or authorisation, beside the line of the call itself.

    Of the credential the line has the public part alone.
    """
    values: dict[str, object] = {
        "reason": error.reason,
        "why": error.message,
        "method": call.method.name,
        "request_id": call.request_id,
        "client": call.client.name,
        "credential": call.credential,
        "peer": peer(),
    }
    logs.event(_audit, logging.WARNING, "refused", values)


def trailers(call: Call) -> Trailers:
    """The trailers of every call: the request id, and the remaining units when the client has a limit."""
    remaining = call.remaining
    if remaining is None:
        return ((metadata.REQUEST_ID, call.request_id),)
    found = [(metadata.REQUEST_ID, call.request_id)]
    if remaining.burst != math.inf:
        found.append((metadata.RATE_REMAINING, f"{max(0.0, remaining.burst):.0f}"))
    if remaining.day != math.inf:
        found.append((metadata.QUOTA_REMAINING, f"{remaining.day:.0f}"))
    return tuple(found)


def failure_trailers(call: Call, status: status_pb2.Status) -> Trailers:
    return (*trailers(call), (metadata.STATUS_DETAILS, status.SerializeToString()))
