"""What a trace tells of a request in the gateway.

Owns names and attributes; spans and their way to a collector are runtime/tracing.py's.
"""

from gateway.calls.request import Request
from market_inference.contract import methods
from runtime.tracing import Kind, Span, Traces


def begin(traces: Traces, request: Request, kind: Kind) -> None:
    """Give the request its span, which whoever serves it will be told of as its parent."""
    name = f"{methods.SERVICE.full_name}/{request.method.name}"
    # An item of a Stream is no RPC of its own.
    attributes = {"rpc.system.name": "grpc", "rpc.method": name} if kind == "server" else {}
    request.span = traces.request(name, kind, request.traceparent, request.began, attributes)
    request.traceparent = request.span.traceparent


def end(span: Span, request: Request, code: str, reason: str, at: float) -> None:
    """The request was over at an instant of the monotonic clock, and so was its span."""
    told: dict[str, str | int] = {
        "market.request_id": request.request_id,
        "market.client": request.client,
        "market.replica": request.replica,
        "market.attempts": request.attempts,
        "market.batch_items": request.batch_items,
        "market.request_bytes": request.cost,
    }
    span.end(code, reason, at, {name: value for name, value in told.items() if value})
