"""The span of a call in the gateway.

Owns names and attributes; spans and their way to a collector are runtime/tracing.py's.
"""

from gateway.calls.call import Call
from market_inference.contract import methods
from runtime.tracing import Kind, Span, Traces


def begin(traces: Traces, call: Call, kind: Kind) -> None:
    """Begin the call's span; the replica's spans become its children."""
    name = f"{methods.SERVICE.full_name}/{call.method.name}"
    # An item of a Stream is no RPC of its own.
    attributes = {"rpc.system.name": "grpc", "rpc.method": name} if kind == "server" else {}
    call.span = traces.request(name, kind, call.traceparent, call.began, attributes)
    call.traceparent = call.span.traceparent


def end(span: Span, call: Call, code: str, reason: str, at: float) -> None:
    """End the span of a call that finished at `at`, an instant of the monotonic clock."""
    attributes: dict[str, str | int] = {
        "market.request_id": call.request_id,
        "market.client": call.client.name,
        "market.replica": call.replica,
        "market.attempts": call.attempts,
        "market.batch_items": call.timing.batch_items,
        "market.request_bytes": call.size_bytes,
    }
    span.end(code, reason, at, {name: value for name, value in attributes.items() if value})
