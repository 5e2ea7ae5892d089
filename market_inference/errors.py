"""The errors of calls.

Owns the way from a gRPC failure or a google.rpc.Status inside an answer to a typed exception. The service's side of the
same errors is market_inference/contract/errors.py.

    try:
        client.predict(closes, horizon=10)
    except errors.InvalidRequestError as error:
        for field, description in error.violations: ...
    except errors.OverloadedError as error:
        wait(error.retry_after)
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from market_inference.contract.errors import code_name
from market_inference.contract.metadata import STATUS_DETAILS

TOO_LATE = "the timeout passed before the answer was there"
WRONG_ANSWER = "WRONG_ANSWER"
"""The reason of an InternalError that the client makes of a wrong answer."""


class MarketInferenceError(Exception):
    """The error of a call, or of one item of a call.

    `code`: the gRPC status code's name, such as "INVALID_ARGUMENT". `reason`: stable and machine-readable.
    `request_id`: the id under which the service's log has the call. `retry_after`: seconds until another try is worth
    while, None when the service gave no time. `violations`: (field, description) of every broken rule. `reached`: the
    service made the error; False when gRPC made the error on this side, as without a connection.
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
        self.reached = True
        if request_id:
            self.add_note(f"request id: {request_id}")

    def __getattr__(self, name: str) -> Any:
        """The error stands in its item's place among answers: the error says why the item has no `point` or `label`."""
        if name.startswith("_"):
            raise AttributeError(name)
        text = self.__dict__.get("message", "")
        raise AttributeError(f"no {name!r}: this item failed: {text}", name=name, obj=self) from self

    def __reduce__(self) -> Any:
        """Errors travel between processes whole, whatever their class asks for when it is made."""
        return _restored, (type(self), self.args, self.__dict__)

    def extend(self, hint: str) -> None:
        """Add the way out to the message."""
        self.message = f"{self.message}; {hint}" if self.message else hint
        self.args = (self.message,)


def _restored(kind: type[Exception], args: tuple[Any, ...], attributes: dict[str, Any]) -> Exception:
    made = kind.__new__(kind, *args)
    made.__dict__.update(attributes)
    return made


class InvalidRequestError(MarketInferenceError):
    """The request breaks the contract: `violations` says where and how. Sending it again cannot help."""


class ArgumentError(InvalidRequestError, ValueError, TypeError):
    """An argument without a form in the contract, refused before anything was sent.

    The text names the argument, the value, and what is expected. ValueError and TypeError catch the error, too.
    """

    def __init__(self, field: str, description: str) -> None:
        super().__init__(
            f"{field}: {description}" if field else description,
            code="INVALID_ARGUMENT",
            reason="INVALID_ARGUMENT",
            violations=[(field, description)],
        )


class ClosedError(MarketInferenceError, RuntimeError):
    """The client is closed, or belongs to another event loop."""


class InputWarning(UserWarning):
    """The client changed the order or the extent of data, as the answer's `notes` say, or doubts how it read an array.

    A 2-D array is read as [series, values]; the warning says when the array looks like [values, series].
    """


class UnauthenticatedError(MarketInferenceError):
    """No API key, or a key that the gateway does not know."""


class PermissionDeniedError(MarketInferenceError):
    """A valid key without the right to this call."""


class NotFoundError(MarketInferenceError):
    """The request names a model that the service does not have."""


class OverloadedError(MarketInferenceError):
    """The service is too busy for the call."""


class RateLimitedError(OverloadedError):
    """The key's own quota is used up."""


class DeadlineExceededError(MarketInferenceError):
    """The timeout passed before the answer was there."""


class CancelledError(MarketInferenceError):
    """The call was cancelled."""


class UnavailableError(MarketInferenceError):
    """No service answers at the target, or the requested model is not ready."""


class UnimplementedError(MarketInferenceError):
    """The service does not have the method."""


class InternalError(MarketInferenceError):
    """A bug in the service; the service's log has the trace under the request id.

    With the reason WRONG_ANSWER the client refused an answer: another number of items, steps or levels than asked for,
    another symbol or indicator, NaN, crossed quantiles, probabilities without the sum 1, no coverage. `violations` has
    the field, with what was expected and what came.
    """


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
    found: dict[str, Any] = {"code": code_name(status.code), "request_id": request_id}
    for detail in status.details:
        if (info := _unpacked(detail, error_details_pb2.ErrorInfo)) is not None:
            found["reason"] = info.reason
        elif (retry := _unpacked(detail, error_details_pb2.RetryInfo)) is not None:
            found["retry_after"] = max(0.0, retry.retry_delay.ToNanoseconds() * 1e-9)
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
    """The typed error of a failed call, made by the service or by gRPC on this side."""
    # The errors of calls are grpc.Call, too, or its aio twin; the stubs of grpcio do not say so.
    call = cast(grpc.Call, error)
    for key, value in call.trailing_metadata() or ():
        if key == STATUS_DETAILS and isinstance(value, bytes):
            with suppress(DecodeError):  # a proxy cut the bytes: the code and the text of the call remain
                return from_status(status_pb2.Status.FromString(value), request_id)
    number, _ = call.code().value
    message = TOO_LATE if number == code_pb2.DEADLINE_EXCEEDED else call.details() or ""
    if number == code_pb2.RESOURCE_EXHAUSTED and "message larger than max" in message:
        number = code_pb2.INTERNAL  # gRPC's own limit: the next answer would be as large
    made = from_status(status_pb2.Status(code=number, message=message), request_id)
    made.reached = False
    return made


def too_late(request_id: str) -> MarketInferenceError:
    """The error of a call without an answer within its timeout."""
    error = from_status(status_pb2.Status(code=code_pb2.DEADLINE_EXCEEDED, message=TOO_LATE))
    error.reached = False
    error.request_id = request_id
    return error


def _unpacked(detail: Any, kind: Any) -> Any:
    """The detail message inside an Any, or None when it is of another kind, or its bytes are no such message."""
    message = kind()
    with suppress(DecodeError):
        return message if detail.Unpack(message) else None
    return None
