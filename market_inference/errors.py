"""The errors that a call can end with.

Owns the way from a gRPC failure or a google.rpc.Status inside an answer to a typed exception. The service's side of the
same errors is market_inference/contract/errors.py.

    try:
        client.predict(closes, horizon=10)
    except errors.InvalidRequestError as error:
        for field, what in error.violations: ...
    except errors.OverloadedError as error:
        wait(error.retry_after)
"""

from collections.abc import Iterable
from typing import Any, cast

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2

from market_inference.contract.metadata import STATUS_DETAILS

TOO_LATE = "the timeout passed before the answer was there"


class MarketInferenceError(Exception):
    """A call, or one item of it, that failed.

    `code`: the gRPC status code's name, such as "INVALID_ARGUMENT". `reason`: stable and machine-readable.
    `request_id`: what to quote to whoever runs the service. `retry_after`: seconds after which trying again is worth
    while, None when the service named none. `violations`: (field, description) of every rule that the request breaks.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        reason: str = "",
        request_id: str = "",
        retry_after: float | None = None,
        violations: Iterable[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.request_id = request_id
        self.retry_after = retry_after
        self.violations = list(violations)
        if request_id:
            self.add_note(f"request id: {request_id}")


class InvalidRequestError(MarketInferenceError):
    """The request breaks the contract: `violations` says where and how. Sending it again cannot help."""


class UnauthenticatedError(MarketInferenceError):
    """No API key, or one that the gateway does not know."""


class PermissionDeniedError(MarketInferenceError):
    """A valid key without the right to this call."""


class NotFoundError(MarketInferenceError):
    """The request names a model that the service does not have."""


class OverloadedError(MarketInferenceError):
    """The service has no room for this now."""


class RateLimitedError(OverloadedError):
    """The key's own quota is used up."""


class DeadlineExceededError(MarketInferenceError):
    """The timeout passed before the answer was there."""


class CancelledError(MarketInferenceError):
    """The call was withdrawn."""


class UnavailableError(MarketInferenceError):
    """Nothing answers there, or what was asked for is not ready."""


class UnimplementedError(MarketInferenceError):
    """The service does not offer this."""


class InternalError(MarketInferenceError):
    """A bug on the service's side; its log has the trace under the request id."""


_BY_CODE: dict[int, type[MarketInferenceError]] = {
    code_pb2.INVALID_ARGUMENT: InvalidRequestError,
    code_pb2.OUT_OF_RANGE: InvalidRequestError,
    code_pb2.FAILED_PRECONDITION: InvalidRequestError,
    code_pb2.UNAUTHENTICATED: UnauthenticatedError,
    code_pb2.PERMISSION_DENIED: PermissionDeniedError,
    code_pb2.NOT_FOUND: NotFoundError,
    code_pb2.RESOURCE_EXHAUSTED: OverloadedError,
    code_pb2.DEADLINE_EXCEEDED: DeadlineExceededError,
    code_pb2.CANCELLED: CancelledError,
    code_pb2.UNAVAILABLE: UnavailableError,
    code_pb2.UNIMPLEMENTED: UnimplementedError,
}


def from_status(status: status_pb2.Status, request_id: str = "") -> MarketInferenceError:
    """The typed error of a google.rpc.Status; `request_id` is used when the status carries none."""
    kind = _BY_CODE.get(status.code, InternalError)
    found: dict[str, Any] = {"code": code_pb2.Code.Name(status.code), "request_id": request_id}
    for detail in status.details:
        if (info := _unpacked(detail, error_details_pb2.ErrorInfo)) is not None:
            found["reason"] = info.reason
        elif (retry := _unpacked(detail, error_details_pb2.RetryInfo)) is not None:
            found["retry_after"] = retry.retry_delay.ToNanoseconds() * 1e-9
        elif (request := _unpacked(detail, error_details_pb2.RequestInfo)) is not None:
            found["request_id"] = request.request_id
        elif (bad := _unpacked(detail, error_details_pb2.BadRequest)) is not None:
            # A request over the byte limit is RESOURCE_EXHAUSTED by gRPC's custom, yet trying again cannot help.
            kind = InvalidRequestError
            found["violations"] = [(violation.field, violation.description) for violation in bad.field_violations]
        elif detail.Is(error_details_pb2.QuotaFailure.DESCRIPTOR):
            kind = RateLimitedError
    found.setdefault("reason", found["code"])
    return kind(status.message, **found)


def from_rpc(error: grpc.RpcError, request_id: str = "") -> MarketInferenceError:
    """The typed error of a failed call, whether the service answered with it or gRPC made it on this side."""
    # Every error that a call ends with is a grpc.Call too (or its aio twin); the stubs of grpcio do not say so.
    call = cast(grpc.Call, error)
    for key, value in call.trailing_metadata() or ():
        if key == STATUS_DETAILS and isinstance(value, bytes):
            return from_status(status_pb2.Status.FromString(value), request_id)
    if call.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return from_status(status_pb2.Status(code=code_pb2.DEADLINE_EXCEEDED, message=TOO_LATE), request_id)
    number, _ = call.code().value
    return from_status(status_pb2.Status(code=number, message=call.details() or ""), request_id)


def _unpacked(detail: Any, kind: Any) -> Any:
    """The detail message inside an Any, or None when it is of another kind."""
    message = kind()
    return message if detail.Unpack(message) else None
