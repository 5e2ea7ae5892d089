"""One request on its way through the gateway: identity, deadline, caller, and where its time went."""

from dataclasses import dataclass

from gateway.access.budget import Remaining
from market_inference.contract.generated import exchange_pb2
from market_inference.contract.methods import Method
from runtime.tracing import Span

BODIES = {
    "Predict": "predict",
    "AnalyzeSentiment": "sentiment",
    "ComputeIndicators": "indicators",
    "Analyze": "analyze",
    "ListModels": "models",
}
"""The envelope's body for each method that a replica answers alone."""


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
    # Of the attempts, those that were made although the one before had not failed.
    hedges: int = 0
    # Until a replica was first asked; then as the replica that answered tells, see Timing in exchange.proto.
    gateway_seconds: float = 0.0
    queue_seconds: float = 0.0
    form_seconds: float = 0.0
    run_seconds: float = 0.0
    encode_seconds: float = 0.0
    device_seconds: float = 0.0
    batch_items: int = 0
    # Where it is traced.
    span: Span | None = None

    def answered(self, timing: exchange_pb2.Timing, calls: int = 1) -> None:
        """Take over where a replica's time went, for this request and those that shared it, `calls` in all."""
        self.queue_seconds = timing.queue_us * 1e-6
        self.form_seconds = timing.form_us * 1e-6
        self.run_seconds = timing.run_us * 1e-6
        self.encode_seconds = timing.encode_us * 1e-6
        self.device_seconds = timing.device_us * 1e-6 / calls
        self.batch_items = timing.batch_items

    def sent_as(self, other: "Request") -> None:
        """Take over how the request was sent that stands for this one and others."""
        if other.attempts:
            self.replica, self.attempts, self.hedges = other.replica, other.attempts, other.hedges
            self.gateway_seconds = other.began + other.gateway_seconds - self.began

    def begin_again(self) -> None:
        """It is sent alone, after what came of sending it with others, which was nobody's failure to answer."""
        self.attempts = self.hedges = 0
