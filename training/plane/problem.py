"""Errors as RFC 9457 documents (application/problem+json).

Owns the form of the document: `type`, `title`, `status`, `detail`, and beside these `reason`, `request_id` and `errors`
with field, description and limit.
"""

from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from training.plane.errors import InvalidRequestError, PlaneError, Violation

MEDIA_TYPE = "application/problem+json"
_MOST_ERRORS = 100
_LIMITS = ("le", "ge", "lt", "gt", "max_length", "min_length", "pattern", "expected")


def response(error: PlaneError, request_id: str) -> JSONResponse:
    """The answer for a refusal."""
    shown = [
        {"field": v.field, "description": v.description, **({} if v.limit is None else {"limit": v.limit})}
        for v in error.violations[:_MOST_ERRORS]
    ]
    body: dict[str, Any] = {
        "type": f"urn:market-inference:{error.reason.lower().replace('_', '-')}",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": error.message,
        "reason": error.reason,
        "request_id": request_id,
    }
    headers = {} if error.retry_after is None else {"Retry-After": str(max(1, round(error.retry_after)))}
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    content = body | ({"errors": shown} if shown else {})
    return JSONResponse(content, error.status, headers, media_type=MEDIA_TYPE)


def of_status(status: int, detail: str) -> PlaneError:
    """A refusal by the framework itself: no such route, no such method, a body that is no JSON."""
    error = PlaneError(detail)
    error.status = status  # type: ignore[misc]
    error.reason = HTTPStatus(status).name  # type: ignore[misc]
    return error


def of_validation(error: RequestValidationError) -> InvalidRequestError:
    """pydantic's list of mistakes as violations."""
    return InvalidRequestError("the request is not valid", *violations(error.errors()))


def violations(mistakes: Any) -> list[Violation]:
    """Field, text and limit of pydantic's mistakes. The value that was sent is not repeated."""
    found = []
    for mistake in mistakes:
        place = [str(part) for part in mistake["loc"] if part not in {"body", "query", "path", "header"}]
        context = mistake.get("ctx", {})
        limit = next((context[name] for name in _LIMITS if isinstance(context.get(name), int | float | str)), None)
        found.append(Violation(".".join(place), str(mistake["msg"])[:500], limit))
    return found
