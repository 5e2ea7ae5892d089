"""The caller's active trace, as W3C Trace Context.

OpenTelemetry is never imported here: a caller with an active span has imported it.
"""

import sys


def active() -> str:
    """The `traceparent` of the caller's active OpenTelemetry span, "" without one."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return ""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
