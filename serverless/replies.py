"""What a job's result looks like: the success and error forms, and an error's words.

Owns the mapping from errors to those words. Field paths are said as the caller wrote them, see forms.py.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from google.rpc import error_details_pb2, status_pb2

from market_inference.contract.errors import SERVERLESS_ERROR_TYPES, RequestTooLargeError, reason_of

Result = dict[str, Any]
_MOST_VIOLATIONS = 5


def success(output: Any, request_id: str) -> Result:
    return {"status": "success", "output": output, "request_id": request_id}


def failure(status: status_pb2.Status, request_id: str, names: Mapping[str, str]) -> Result:
    """`names` maps field paths of the contract to the caller's own words."""
    return {
        "status": "error",
        "error": text(status, names),
        "error_type": error_type(status),
        "request_id": request_id,
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }


def error_type(status: status_pb2.Status) -> str:
    """Requirement S3's name for a status."""
    if reason_of(status) == RequestTooLargeError.reason:
        return "validation"  # over gRPC its code is that of a full queue, which is worth another try; this is not
    return SERVERLESS_ERROR_TYPES.get(status.code, "runtime")


def text(status: status_pb2.Status, names: Mapping[str, str]) -> str:
    """One sentence for people, such as `time_series too short (min 30, got 2)`."""
    bad = error_details_pb2.BadRequest()
    for detail in status.details:
        if detail.Unpack(bad):
            broken = bad.field_violations[:_MOST_VIOLATIONS]
            return "; ".join(f"{renamed(one.field, names)} {one.description}".strip() for one in broken)
    message: str = status.message
    return message


def renamed(path: str, names: Mapping[str, str]) -> str:
    """The path with its longest prefix that `names` knows replaced."""
    for prefix in sorted(names, key=len, reverse=True):
        if path == prefix or (path.startswith(prefix) and path[len(prefix)] in ".["):
            return names[prefix] + path[len(prefix) :]
    return path
