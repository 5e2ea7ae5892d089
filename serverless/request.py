"""One job on its way through the worker: what it asks, under which id, and until when.

Owns what stands around the message in a job's input: `action`, `request_id`, `timeout` and `priority`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.rpc import code_pb2

from market_inference.contract import deadline, metadata
from market_inference.contract.errors import InvalidRequestError, ServiceError, Violation

STREAMED = ("predict_stream", "watch")
ACTIONS = ("predict", "sentiment", "indicators", "analyze", "health", "models", *STREAMED)

_AROUND = {"action", "request_id", "timeout", "priority"}


class UnknownActionError(ServiceError):
    """The job names no action that this worker has."""

    code = code_pb2.UNIMPLEMENTED
    reason = "INVALID_ACTION"

    def __init__(self, action: str) -> None:
        there_are = f"there are: {', '.join(ACTIONS)}"
        super().__init__(f"unknown action {action[:64]!r}; {there_are}" if action else f"no action given; {there_are}")


@dataclass(slots=True, eq=False)
class Request:
    """`names` maps field paths of the contract to the caller's own words, see forms.py."""

    action: str
    body: dict[str, Any]
    priority: str
    deadline: float
    names: dict[str, str] = field(default_factory=dict)

    @property
    def streamed(self) -> bool:
        """It has several outputs."""
        return self.action in STREAMED


def request_id(job: Mapping[str, Any]) -> str:
    """The input's own id when it is 1 to 128 harmless characters, else the job's, else a new UUID."""
    given = job.get("input")
    asked = given.get("request_id") if isinstance(given, dict) else None
    return metadata.request_id(asked, job.get("id"))


def read(job: Mapping[str, Any], *, default_timeout: float, max_timeout: float) -> Request:
    """The request in a job. Raises InvalidRequestError or UnknownActionError."""
    given = job.get("input")
    if not isinstance(given, dict):
        raise InvalidRequestError([Violation("input", "must be an object")])
    action = given.get("action", "")
    if action not in ACTIONS:
        raise UnknownActionError(str(action))
    return Request(
        action=action,
        body={name: value for name, value in given.items() if name not in _AROUND},
        priority=_priority(given.get("priority")),
        deadline=deadline.after(min(_timeout(given.get("timeout"), default_timeout), max_timeout)),
    )


def _timeout(given: Any, default: float) -> float:
    if given is None:
        return default
    if isinstance(given, bool) or not isinstance(given, int | float) or not given > 0:
        raise InvalidRequestError([Violation("timeout", "must be a number of seconds above 0")])
    return float(given)


def _priority(given: Any) -> str:
    if given not in (None, "interactive", "batch"):
        raise InvalidRequestError([Violation("priority", "must be interactive or batch")])
    return given or "interactive"
