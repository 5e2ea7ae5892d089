"""One request on its way through the gateway: identity, deadline, caller, and where its time went."""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.budget import Remaining
from wire import metadata
from wire.contract import Method

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


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


def request_id(sent: Mapping[str, str | bytes]) -> str:
    """The caller's id when it is 1 to 128 harmless characters, else a new UUID."""
    given = sent.get(metadata.REQUEST_ID)
    if isinstance(given, str) and _REQUEST_ID.fullmatch(given):
        return given
    return str(uuid.uuid4())


def priority(sent: Mapping[str, str | bytes]) -> str:
    """`batch` when asked for, else `interactive`."""
    return "batch" if sent.get(metadata.PRIORITY) == "batch" else "interactive"
