"""What comes with a request besides its message: who asks, until when, and which items the front has refused."""

from dataclasses import dataclass, field

from google.rpc import status_pb2

from wire.deadline import NEVER


@dataclass(slots=True)
class Call:
    """One request's circumstances, and where its time went (seconds)."""

    request_id: str = ""
    client: str = ""
    priority: str = "interactive"
    deadline: float = NEVER
    refused: dict[tuple[str, int], status_pb2.Status] = field(default_factory=dict)
    queue_seconds: float = 0.0
    device_seconds: float = 0.0
    batch_items: int = 0
