"""One request: metadata, items refused by the gateway, and timing."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from google.rpc import status_pb2

from inference.batching.job import Job
from market_inference.contract.deadline import NEVER, now
from runtime.tracing import Span


@dataclass(slots=True)
class Call:
    """Metadata and timing of one request. All durations are seconds.

    The phases follow each other: queue, form (the batch), run (the batches), encode. `device_seconds` is the request's
    share of the run time of its batches.
    """

    request_id: str = ""
    client: str = ""
    priority: str = "interactive"
    traceparent: str = ""
    deadline: float = NEVER
    # Items refused by the gateway, by (name of the list, index).
    refused: dict[tuple[str, int], status_pb2.Status] = field(default_factory=dict)
    queue_seconds: float = 0.0
    form_seconds: float = 0.0
    run_seconds: float = 0.0
    encode_seconds: float = 0.0
    device_seconds: float = 0.0
    batch_items: int = 0
    # Instant of the last outcome.
    completed: float = 0.0
    # None unless the request is traced.
    span: Span | None = None
    # The number of client calls that the gateway merged into this request. Of a merged request: indices of items with
    # an error for outcome, and of items of a cancelled call.
    calls: int = 1
    failed: Sequence[int] = ()
    withdrawn: set[int] = field(default_factory=set)

    def add_timing(self, job: Job) -> None:
        """Add a completed job's timing. Of jobs that ran in parallel the longest phase counts."""
        self.queue_seconds = max(self.queue_seconds, job.started - job.enqueued)
        self.form_seconds = max(self.form_seconds, job.device_began - job.started)
        self.run_seconds = max(self.run_seconds, job.device_ended - job.device_began)
        self.device_seconds += job.device_seconds
        self.batch_items = max(self.batch_items, job.batch_items)
        self.completed = now()

    def encoded(self, at: float) -> None:
        """Note the instant at which the response's bytes were complete."""
        if self.completed:
            self.encode_seconds = at - self.completed
