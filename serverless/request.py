"""The request in a job's input: action, body, priority and deadline.

Owns the fields around the message: `action`, `request_id`, `timeout` and `priority`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.rpc import code_pb2

from market_inference.contract import deadline, metadata
from market_inference.contract.errors import InvalidRequestError, ServiceError, Violation
from market_inference.contract.json_form import options
from market_inference.contract.methods import METHODS

STREAMED = ("predict_stream", "watch")
TRAINING = ("upload_training_data", "train", "process_status", "cancel", "list_models", "download")
"""Actions that the training plane answers (training.py)."""
ACTIONS = (
    *(method.action for method in METHODS.values() if method.action and not method.streams),
    *STREAMED,
    *TRAINING,
)

_ENVELOPE = {"action", "request_id", "timeout", "priority"}


class UnknownActionError(ServiceError):
    """The job names no action of this worker."""

    code = code_pb2.UNIMPLEMENTED
    reason = "INVALID_ACTION"

    def __init__(self, action: str) -> None:
        there_are = f"there are: {', '.join(ACTIONS)}"
        super().__init__(f"unknown action {action[:64]!r}; {there_are}" if action else f"no action given; {there_are}")


@dataclass(slots=True, eq=False)
class Request:
    """`body`: the message as JSON. `deadline`: monotonic seconds. `names`: contract field paths -> caller's names."""

    action: str
    body: dict[str, Any]
    priority: str
    deadline: float
    names: dict[str, str] = field(default_factory=dict)

    @property
    def streamed(self) -> bool:
        """Whether the action has several outputs."""
        return self.action in STREAMED


def request_id(job: Mapping[str, Any]) -> str:
    """The input's `request_id` if it is valid (1 to 128 safe characters), else the job's id, else a new UUID."""
    given = job.get("input")
    asked = given.get("request_id") if isinstance(given, dict) else None
    return metadata.request_id(asked, job.get("id"))


def read(job: Mapping[str, Any], *, default_timeout: float, max_timeout: float) -> Request:
    """Read the request in a job. Raises InvalidRequestError or UnknownActionError."""
    given = job.get("input")
    if not isinstance(given, dict):
        raise InvalidRequestError([Violation("input", "must be an object")])
    action = given.get("action", "")
    if action not in ACTIONS:
        raise UnknownActionError(str(action))
    return Request(
        action=action,
        body={name: value for name, value in given.items() if name not in _ENVELOPE},
        priority=options.priority(given.get("priority")),
        deadline=deadline.after(min(options.timeout(given.get("timeout"), default_timeout), max_timeout)),
    )
