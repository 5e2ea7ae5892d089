"""A google.rpc.Status in the words of the caller's JSON.

Owns the mapping of field paths of the contract to the names that the caller wrote (see forms.py), the sentence for
people, and the `error_type` of an answer.
"""

from collections.abc import Mapping

from google.rpc import error_details_pb2, status_pb2

from market_inference.contract.errors import SERVERLESS_ERROR_TYPES, RequestTooLargeError, reason_of

_MOST_VIOLATIONS = 5
# First words of descriptions that continue the field's name as one sentence; before others stands a colon.
_PREDICATES = ("must ", "is ", "are ", "has ", "have ", "too ", "need ", "needs ", "stands ")


def error_type(status: status_pb2.Status) -> str:
    """The `error_type` of an answer for a status; docs/runpod.md lists the types."""
    if reason_of(status) == RequestTooLargeError.reason:
        # RequestTooLargeError shares RESOURCE_EXHAUSTED with a full queue, but a retry cannot succeed.
        return "validation"
    return SERVERLESS_ERROR_TYPES.get(status.code, "runtime")


def text(status: status_pb2.Status, names: Mapping[str, str]) -> str:
    """One sentence for people, such as `time_series too short (min 30, got 2)`; at most five violations."""
    bad = error_details_pb2.BadRequest()
    for detail in status.details:
        if detail.Unpack(bad):
            broken = bad.field_violations[:_MOST_VIOLATIONS]
            return "; ".join(_sentence(renamed(one.field, names), one.description) for one in broken)
    message: str = status.message
    return message


def _sentence(field: str, description: str) -> str:
    if not field:
        return description
    return f"{field}{'' if description.startswith(_PREDICATES) else ':'} {description}"


def renamed(path: str, names: Mapping[str, str]) -> str:
    """The path, with the longest prefix found in `names` replaced."""
    for prefix in sorted(names, key=len, reverse=True):
        if path == prefix or (path.startswith(prefix) and path[len(prefix)] in ".["):
            return names[prefix] + path[len(prefix) :]
    return path
