"""The trace that a call belongs to, as W3C Trace Context.

Owns finding it: OpenTelemetry is not imported here, for a caller with an active span has done so.
"""

import sys


def active() -> str:
    """The `traceparent` of the caller's active OpenTelemetry span, "" when there is none."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return ""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
