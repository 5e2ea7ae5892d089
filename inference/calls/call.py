"""One request: metadata, items refused by the gateway, and timing."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.rpc import status_pb2

from inference.batching.job import Job
from market_inference.contract.deadline import NEVER, now
from runtime.tracing import Span


@dataclass(slots=True)
class ReplicaCall:
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
    # Names of the models, separated by commas, and the items that they got, for the log line.
    model: str = ""
    items: int = 0
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
    # Warnings in the answers, by code; None without a warning.
    warnings: Counter[str] | None = None

    def add_items(self, model: str, items: int) -> None:
        """Note what a model is asked for; Analyze has several parts."""
        self.model = f"{self.model}, {model}" if self.model else model
        self.items += items

    def add_timing(self, job: Job) -> None:
        """Add a completed job's timing. Of jobs that ran in parallel the longest phase counts."""
        self.queue_seconds = max(self.queue_seconds, job.started - job.enqueued)
        self.form_seconds = max(self.form_seconds, job.device_began - job.started)
        self.run_seconds = max(self.run_seconds, job.device_ended - job.device_began)
        self.device_seconds += job.device_seconds
        self.batch_items = max(self.batch_items, job.batch_items)
        self.completed = now()

    def count_warnings(self, outcomes: Iterable[Any]) -> None:
        """Count the warnings of outcomes; errors have none."""
        for outcome in outcomes:
            for warning in getattr(outcome, "warnings", ()):
                self.warnings = self.warnings if self.warnings is not None else Counter()
                self.warnings[warning.code] += 1

    def encoded(self, at: float) -> None:
        """Note the instant at which the response's bytes were complete."""
        if self.completed:
            self.encode_seconds = at - self.completed
