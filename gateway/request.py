"""One request on its way through the gateway: identity, deadline, caller, and where its time went."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.budget import Remaining
from wire import metadata
from wire.contract import Method


@dataclass(slots=True, eq=False)
class Request:
    """Made where a call enters. `began` and `deadline` are instants of the monotonic clock."""

    method: Method
    request_id: str
    began: float
    deadline: float
    priority: str = "interactive"
    traceparent: str = ""
    client: str = ""
    # The public part of a credential that was refused.
    credential: str = ""
    cost: int = 0
    units: int = 0
    # What its client has left, where there is a limit.
    remaining: Remaining | None = None
    replica: str = ""
    attempts: int = 0
    queue_seconds: float = 0.0
    device_seconds: float = 0.0
    batch_items: int = field(default=0)


def priority(sent: Mapping[str, str | bytes]) -> str:
    """`batch` when asked for, else `interactive`."""
    return "batch" if sent.get(metadata.PRIORITY) == "batch" else "interactive"
