"""Errors as RFC 9457 documents (application/problem+json).

Owns the form of the document, and the HTTP status of a gRPC status. `type`, `title`, `status` and `detail` are the
RFC's; `reason`, `code`, `request_id`, `retry_after` and `errors` say what google.rpc.Status says of the same failure:
every broken rule with the field as the caller wrote it, the description, and the limit.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson
from google.rpc import code_pb2, error_details_pb2, status_pb2
from starlette.responses import Response

from market_inference.contract.errors import RequestTooLargeError, ServiceError, code_name, reason_of, retry_after_of
from market_inference.contract.json_form import mistakes

MEDIA_TYPE: Final = "application/problem+json"
# The mapping of google/rpc/code.proto.
_HTTP: Final = {
    code_pb2.OK: 200,
    code_pb2.CANCELLED: 499,
    code_pb2.INVALID_ARGUMENT: 400,
    code_pb2.FAILED_PRECONDITION: 400,
    code_pb2.OUT_OF_RANGE: 400,
    code_pb2.UNAUTHENTICATED: 401,
    code_pb2.PERMISSION_DENIED: 403,
    code_pb2.NOT_FOUND: 404,
    code_pb2.ALREADY_EXISTS: 409,
    code_pb2.ABORTED: 409,
    code_pb2.RESOURCE_EXHAUSTED: 429,
    code_pb2.UNIMPLEMENTED: 501,
    code_pb2.UNAVAILABLE: 503,
    code_pb2.DEADLINE_EXCEEDED: 504,
}
# The words of market_inference/contract/validation/rules.py, "too short (min 30, got 2)", and of protovalidate,
# "must be greater than or equal to 1 and less than or equal to 365 (got 366)".
_NUMBER: Final = r" (-?\d[\d.]*(?:e[+-]?\d+)?)"
_LEAST: Final = re.compile(rf"(?:min|at least|greater than(?: or equal to)?){_NUMBER}")
_MOST: Final = re.compile(rf"(?:max|at most|no more than|less than(?: or equal to)?){_NUMBER}")
_GOT: Final = re.compile(rf"got{_NUMBER}")


def http_status(status: status_pb2.Status) -> int:
    """The HTTP status of a google.rpc.Status."""
    if reason_of(status) == RequestTooLargeError.reason:
        return 413
    return _HTTP.get(status.code, 500)


def document(status: status_pb2.Status, names: Mapping[str, str], override: int = 0) -> dict[str, Any]:
    """The document of a status with RequestInfo; `override` is an HTTP status in place of the mapped one."""
    number = override or http_status(status)
    reason = reason_of(status)
    found: dict[str, Any] = {
        "type": f"urn:market-inference:{reason.lower().replace('_', '-')}",
        "title": _phrase(number),
        "status": number,
        "detail": mistakes.text(status, names),
        "reason": reason,
        "code": code_name(status.code),
    }
    if retry_after := retry_after_of(status):
        found["retry_after"] = retry_after
    for detail in status.details:
        _add(found, detail, names)
    return found


def _add(found: dict[str, Any], detail: Any, names: Mapping[str, str]) -> None:
    """Add the content of one google.rpc detail message."""
    bad, told = error_details_pb2.BadRequest(), error_details_pb2.RequestInfo()
    if detail.Unpack(bad):
        found["errors"] = [_violation(one, names) for one in bad.field_violations]
    elif detail.Unpack(told):
        found["request_id"] = told.request_id


def _violation(one: Any, names: Mapping[str, str]) -> dict[str, Any]:
    shown: dict[str, Any] = {"field": mistakes.renamed(one.field, names), "description": one.description}
    if one.reason:
        shown["rule"] = one.reason
    if (limit := limit_of(one.description)) is not None:
        shown["limit"] = limit
    return shown


def limit_of(description: str) -> float | None:
    """The broken limit that a violation's description names; None where it names none."""
    least, most, got = (_number(words.search(description)) for words in (_LEAST, _MOST, _GOT))
    if least is None or most is None:
        return least if most is None else most
    return most if got is not None and got > most else least


def _number(found: re.Match[str] | None) -> float | None:
    if found is None:
        return None
    return int(found[1]) if found[1].lstrip("-").isdecimal() else float(found[1])


def _phrase(number: int) -> str:
    try:
        return HTTPStatus(number).phrase
    except ValueError:
        return "Client Closed Request"  # 499, which nginx introduced


def response(
    error: ServiceError, request_id: str, names: Mapping[str, str], extra: Mapping[str, Any] | None = None
) -> Response:
    """The HTTP answer for an error. `extra`: further members of the document."""
    found = document(error.status(request_id), names, getattr(error, "http_status", 0)) | dict(extra or {})
    headers = {"Cache-Control": "no-store"}
    if "retry_after" in found:
        headers["Retry-After"] = str(max(1, round(found["retry_after"])))
    if found["status"] == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(orjson.dumps(found), found["status"], headers, media_type=MEDIA_TYPE)
