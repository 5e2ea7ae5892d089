"""What comes with a request besides its message: who asks, until when, and which items the front has refused."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from google.rpc import status_pb2

from inference.batching.job import Job
from market_inference.contract.deadline import NEVER, now
from runtime.tracing import Span


@dataclass(slots=True)
class Call:
    """One request's circumstances, and where its time went (seconds).

    The phases are the queue, the forming of its batch, the batches' run and the encoding; `device_seconds` is what the
    request cost the device, its share of those batches.
    """

    request_id: str = ""
    client: str = ""
    priority: str = "interactive"
    traceparent: str = ""
    deadline: float = NEVER
    refused: dict[tuple[str, int], status_pb2.Status] = field(default_factory=dict)
    queue_seconds: float = 0.0
    form_seconds: float = 0.0
    run_seconds: float = 0.0
    encode_seconds: float = 0.0
    device_seconds: float = 0.0
    batch_items: int = 0
    # When its last outcomes were there.
    delivered: float = 0.0
    # Where the request is traced.
    span: Span | None = None
    # How many calls it stands for, which the front parts its answer to; and then, by place, the items that carry an
    # error, and those that nobody waits for any more.
    calls: int = 1
    failed: Sequence[int] = ()
    gone: set[int] = field(default_factory=set)

    def took(self, job: Job) -> None:
        """Add a job's time, now that its outcomes are there. Parts that ran side by side count with the longest."""
        self.queue_seconds = max(self.queue_seconds, job.started - job.enqueued)
        self.form_seconds = max(self.form_seconds, job.device_began - job.started)
        self.run_seconds = max(self.run_seconds, job.device_ended - job.device_began)
        self.device_seconds += job.device_seconds
        self.batch_items = max(self.batch_items, job.batch_items)
        self.delivered = now()

    def encoded(self, at: float) -> None:
        """The answer's bytes are there."""
        if self.delivered:
            self.encode_seconds = at - self.delivered
