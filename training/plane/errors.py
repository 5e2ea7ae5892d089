"""Refusals, as callers meet them.

Owns the typed errors with status, reason and text. problem.py writes an error as an RFC 9457 document.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule: the field's path in the request, a description, and the limit where there is one."""

    field: str
    description: str
    limit: int | float | str | None = None


class ConfigurationError(Exception):
    """The configuration is readable, and not safe or not possible."""


class PlaneError(Exception):
    """An error that the caller can understand. `reason` is stable and machine-readable, the text is for people."""

    status: ClassVar[int] = 500
    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *violations: Violation, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.violations: Sequence[Violation] = violations
        self.retry_after = retry_after


class InvalidRequestError(PlaneError):
    """The request breaks a rule; nothing was done."""

    status = 422
    reason = "INVALID_REQUEST"

    @classmethod
    def at(cls, field: str, description: str, limit: Any = None) -> "InvalidRequestError":
        """One broken rule of one field."""
        return cls(f"{field}: {description}", Violation(field, description, limit))


class TooLargeError(PlaneError):
    """More bytes than the limit."""

    status = 413
    reason = "REQUEST_TOO_LARGE"

    @classmethod
    def over(cls, field: str, limit: int, got: int) -> "TooLargeError":
        """`field` holds more than `limit` bytes."""
        text = f"at most {limit} bytes, got {got}"
        return cls(f"{field}: {text}", Violation(field, text, limit))


class SlowBodyError(PlaneError):
    """The request's body did not arrive in time."""

    status = 408
    reason = "BODY_TOO_SLOW"


class UnauthenticatedError(PlaneError):
    """No credential, or an invalid credential."""

    status = 401
    reason = "UNAUTHENTICATED"


class TokenRefusedError(PlaneError):
    """One text for a wrong, expired, used and revoked token: the answer tells an attacker nothing."""

    status = 401
    reason = "TOKEN_REFUSED"

    def __init__(self) -> None:
        super().__init__("the token is not valid: it is wrong, expired or used")


class PermissionDeniedError(PlaneError):
    """A valid credential without the right to this."""

    status = 403
    reason = "PERMISSION_DENIED"


class NotFoundError(PlaneError):
    """The caller owns no object with this id."""

    status = 404
    reason = "NOT_FOUND"

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"no {what} {name!r} of yours")


class ConflictError(PlaneError):
    """The request does not fit the state of the named resource."""

    status = 409
    reason = "CONFLICT"


class LimitReachedError(PlaneError):
    """The job, the attempt or the owner has used up what there is of something; the same request passes no later."""

    status = 409
    reason = "LIMIT_REACHED"

    @classmethod
    def at(cls, field: str, limit: int, what: str) -> "LimitReachedError":
        """`what` there are at most `limit` of."""
        text = f"at most {limit} {what}"
        return cls(f"{field}: {text}", Violation(field, text, limit))


class OverloadedError(PlaneError):
    """Refused at once; the same request passes later."""

    status = 429
    reason = "OVERLOADED"


class UnavailableError(PlaneError):
    """The store or the objects are away."""

    status = 503
    reason = "UNAVAILABLE"


class StorageFullError(PlaneError):
    """The disk of the object store or of the database is full."""

    status = 507
    reason = "STORAGE_FULL"


class InternalError(PlaneError):
    """A bug of ours. The text says nothing of the bug; the log has the trace under the same request id."""

    def __init__(self) -> None:
        super().__init__("internal error; the service's log has it under this request id")
