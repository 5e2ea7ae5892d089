"""Errors that callers may receive, with their gRPC codes, stable reasons and serverless names.

Owns the typed errors and their form as google.rpc.Status. A bug is no typed error: the caller receives INTERNAL without
the bug's text, and the log receives the text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

DOMAIN = "market-inference"


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule: `field` is the path in the request, such as `series[3].values`."""

    field: str
    description: str
    reason: str = ""


def printable(text: str) -> str:
    r"""A text from a file's name or a model for callers, logs and terminals: what cannot be shown is an escape.

    Half a surrogate pair, as in a name that is no UTF-8, is no text for protobuf.
    >>> printable("close\x1b[2J, \udcff")
    'close\\x1b[2J, \\udcff'
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


class ServiceError(Exception):
    """An error for the caller. `reason` is stable and machine-readable, the text is for people."""

    code: ClassVar[int] = code_pb2.INTERNAL
    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = _cut(printable(message), _MESSAGE_BYTES, _header_bytes)
        self.retry_after = retry_after

    def details(self) -> list[object]:
        """The google.rpc detail messages beside ErrorInfo, RetryInfo and RequestInfo."""
        return []

    def status(self, request_id: str) -> status_pb2.Status:
        """The error as google.rpc.Status: ErrorInfo and RequestInfo always, RetryInfo with `retry_after`, details()."""
        status = status_pb2.Status(code=self.code, message=self.message)
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN))
        if self.retry_after is not None:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromNanoseconds(int(self.retry_after * 1e9))
            status.details.add().Pack(retry)
        for detail in self.details():
            status.details.add().Pack(detail)
        _add_request_info(status, request_id)
        return status


def _add_request_info(status: status_pb2.Status, request_id: str) -> None:
    status.details.add().Pack(error_details_pb2.RequestInfo(request_id=request_id))


# gRPC refuses trailers above 8 kB: the caller would receive RESOURCE_EXHAUSTED without details. The trailers of
# an error hold the message twice: percent-encoded, and in the details, which grow by a third in base64.
_MESSAGE_BYTES = 1024
_VIOLATIONS_BYTES = 3072
_FIELD_BYTES, _DESCRIPTION_BYTES = 256, 512
_STATUS_BYTES = 8192
_DETAILS = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.RetryInfo,
    error_details_pb2.RequestInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.QuotaFailure,
)


def _cut(text: str, most: int, size: Callable[[str], int]) -> str:
    """The text, or its longest beginning with a size below `most`, and an ellipsis."""
    # No character is larger than 12 bytes in a header.
    if 12 * len(text) <= most or size(text) <= most:
        return text
    left = most - size("…")
    for place, character in enumerate(text):
        left -= size(character)
        if left < 0:
            return f"{text[:place]}…"
    return text


def _utf8_bytes(text: str) -> int:
    return len(text.encode(errors="replace"))


def _header_bytes(text: str) -> int:
    """The size of a text as a gRPC message header: a byte that is not printable ASCII takes three."""
    return sum(1 if 0x20 <= byte < 0x7F and byte != 0x25 else 3 for byte in text.encode(errors="replace"))


class InvalidRequestError(ServiceError):
    """The request breaks the contract; nothing was computed."""

    code = code_pb2.INVALID_ARGUMENT
    reason = "INVALID_REQUEST"

    def __init__(self, violations: Sequence[Violation], *, more: int = 0) -> None:
        """`more` counts violations without a description."""
        self.violations = tuple(violations)
        self.more = more
        super().__init__("; ".join(f"{v.field}: {v.description}" if v.field else v.description for v in violations[:5]))

    def details(self) -> list[object]:
        bad = error_details_pb2.BadRequest()
        more = len(self.violations) + self.more
        for violation in self.violations:
            field = _cut(violation.field, _FIELD_BYTES, _utf8_bytes)
            description = _cut(violation.description, _DESCRIPTION_BYTES, _utf8_bytes)
            bad.field_violations.add(field=field, description=description, reason=violation.reason)
            if bad.ByteSize() > _VIOLATIONS_BYTES:
                del bad.field_violations[-1]
                break
            more -= 1
        if more:
            bad.field_violations.add(description=f"and {more} more", reason="more")
        return [bad]


class RequestTooLargeError(InvalidRequestError):
    """More bytes than the method's limit, or than the limit of a further message of a call, which holds `field`."""

    code = code_pb2.RESOURCE_EXHAUSTED
    reason = "REQUEST_TOO_LARGE"

    def __init__(self, limit: int, got: int, field: str = "") -> None:
        rule = "max_further_request_bytes" if field else "max_request_bytes"
        super().__init__([Violation(field, f"request too large (max {limit} bytes, got {got})", rule)])


class AnswerTooLargeError(InvalidRequestError):
    """The request asks for an answer above the method's limit; nothing was computed."""

    reason = "ANSWER_TOO_LARGE"

    def __init__(self, limit: int, expected: int) -> None:
        description = (
            f"the answer would be too large (max {limit} bytes, expected {expected}): send fewer items in a call, or "
            "ask for fewer quantiles, fewer indicators or only the newest values (`last`)"
        )
        super().__init__([Violation("", description, "max_answer_bytes")])


class NotTakenError(InvalidRequestError):
    """A value in a field that the model does not take; ListModels says what a model takes."""

    reason = "NOT_TAKEN_BY_MODEL"


class BarOutOfOrderError(InvalidRequestError):
    """A bar that opens before the newest bar, or leaves out a sequence number."""

    reason = "BAR_OUT_OF_ORDER"


class DuplicateBarError(InvalidRequestError):
    """A bar that the session has already. Only the newest bar can be corrected."""

    reason = "BAR_DUPLICATE"


class FutureBarError(InvalidRequestError):
    """A bar from after the caller's `as_of`: look-ahead."""

    reason = "BAR_FROM_FUTURE"


class SessionIdleError(ServiceError):
    """The session was closed, since no bar came within the idle time."""

    code = code_pb2.DEADLINE_EXCEEDED
    reason = "SESSION_IDLE"


class SessionLostError(ServiceError):
    """The session's replica is gone. The client opens the session again with the bars so far."""

    code = code_pb2.UNAVAILABLE
    reason = "SESSION_LOST"


class UnauthenticatedError(ServiceError):
    """No credential, or an invalid credential."""

    code = code_pb2.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class PermissionDeniedError(ServiceError):
    """A valid credential without the scope of the method."""

    code = code_pb2.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class UnknownModelError(ServiceError):
    """The request names a model that the service does not have."""

    code = code_pb2.NOT_FOUND
    reason = "UNKNOWN_MODEL"

    def __init__(self, engine: str, model: str, known: Sequence[str], refused: str = "") -> None:
        """`refused`: why the model, or other folders of the registry, are no models."""
        why = f"; not taken from the registry: {refused}" if refused else ""
        super().__init__(f"model: no {engine} model named {model!r}; there are: {', '.join(known) or 'none'}{why}")


class OverloadedError(ServiceError):
    """Refused at once, since the queue is too long for the deadline or for its limit."""

    code = code_pb2.RESOURCE_EXHAUSTED
    reason = "OVERLOADED"


class StalledReaderError(ServiceError):
    """The client of a stream read no answer for so long that the stream was given up."""

    code = code_pb2.RESOURCE_EXHAUSTED
    reason = "READER_STALLED"


class RateLimitedError(ServiceError):
    """Above the client's rate; the same request passes after `retry_after`."""

    code = code_pb2.RESOURCE_EXHAUSTED
    reason = "RATE_LIMITED"


class QuotaExceededError(ServiceError):
    """Above the client's quota of the day."""

    code = code_pb2.RESOURCE_EXHAUSTED
    reason = "QUOTA_EXCEEDED"

    def __init__(self, client: str, description: str, *, retry_after: float) -> None:
        self._client = client
        self._description = description
        super().__init__(f"the quota of the day is used up: {description}", retry_after=retry_after)

    def details(self) -> list[object]:
        failure = error_details_pb2.QuotaFailure()
        subject = _cut(f"client:{self._client}", _FIELD_BYTES, _utf8_bytes)
        failure.violations.add(subject=subject, description=self._description)
        return [failure]


class DeadlineExceededError(ServiceError):
    """The deadline passed before the answer was ready."""

    code = code_pb2.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class CallCancelledError(ServiceError):
    """The caller withdrew the request."""

    code = code_pb2.CANCELLED
    reason = "CANCELLED"


class ServiceUnavailableError(ServiceError):
    """A model that cannot load, no replica, or a service that is stopping."""

    code = code_pb2.UNAVAILABLE
    reason = "UNAVAILABLE"


class DrainingError(ServiceUnavailableError):
    """The process takes no new work; another process will."""

    reason = "DRAINING"


class ProfileRefusedError(ServiceError):
    """The system does not permit a profile of the process."""

    code = code_pb2.FAILED_PRECONDITION
    reason = "PROFILE_REFUSED"


class NotImplementedYetError(ServiceError):
    """An RPC of the contract that this version does not serve."""

    code = code_pb2.UNIMPLEMENTED
    reason = "UNIMPLEMENTED"


class InternalError(ServiceError):
    """A bug. The text tells the caller no detail; the log has the trace under the same request id."""

    def __init__(self, message: str = "internal error; the service's log has it under this request id") -> None:
        super().__init__(message)


class RemoteError(ServiceError):
    """An error of another process of the service, passed on unchanged."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(status.message)
        self.carried = status

    def status(self, request_id: str) -> status_pb2.Status:
        """The received status under `request_id`: the replica may have answered several requests with one error.

        A status without ErrorInfo gets an ErrorInfo, with the name of the code as the reason.
        """
        status = status_pb2.Status(code=self.carried.code, message=self.carried.message)
        if not any(detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR) for detail in self.carried.details):
            status.details.add().Pack(error_details_pb2.ErrorInfo(reason=code_name(status.code), domain=DOMAIN))
        told = error_details_pb2.RequestInfo()
        for detail in self.carried.details:
            if detail.Unpack(told):
                request_id = request_id or told.request_id
            else:
                status.details.append(detail)
        _add_request_info(status, request_id)
        return status


def is_sound(status: status_pb2.Status) -> bool:
    """Whether another process's error can be passed on: the code of an error, details to be read, a size for trailers.

    gRPC never ends a call that is aborted with OK.
    """
    if not status.code or status.code not in code_pb2.Code.values() or status.ByteSize() > _STATUS_BYTES:
        return False
    try:
        for detail in status.details:
            for kind in _DETAILS:
                detail.Unpack(kind())
    except DecodeError:
        return False
    return True


# The gRPC codes in a serverless answer (requirement S3); every other code is a runtime error.
SERVERLESS_ERROR_TYPES = {
    code_pb2.INVALID_ARGUMENT: "validation",
    code_pb2.NOT_FOUND: "validation",
    code_pb2.UNAVAILABLE: "service_unavailable",
    code_pb2.RESOURCE_EXHAUSTED: "service_unavailable",
    code_pb2.UNIMPLEMENTED: "invalid_action",
    code_pb2.INTERNAL: "internal_error",
}


def code_name(code: int) -> str:
    """The gRPC status code's name, such as `INVALID_ARGUMENT`; a code of a proxy or a newer service is UNKNOWN."""
    name: str = code_pb2.Code.Name(code) if code in code_pb2.Code.values() else "UNKNOWN"
    return name


def reason_of(status: status_pb2.Status) -> str:
    """The ErrorInfo reason of a status, or the name of the code for a status without ErrorInfo."""
    info = error_details_pb2.ErrorInfo()
    found = any(detail.Unpack(info) for detail in status.details)
    return str(info.reason) if found else code_name(status.code)


def retry_after_of(status: status_pb2.Status) -> float:
    """The seconds after which the caller should try again, 0 for a status without RetryInfo."""
    retry = error_details_pb2.RetryInfo()
    found = any(detail.Unpack(retry) for detail in status.details)
    return float(retry.retry_delay.ToNanoseconds() * 1e-9) if found else 0.0
