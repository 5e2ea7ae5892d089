"""Exemplars: the trace id beside an observation.

Owns the condition: a traceparent with the sampled flag, because no collector has any other trace.
"""

import re

# Version 00: trace id (not all zeros), parent id (not all zeros), flags, of which the lowest bit says "sampled".
# Source: https://www.w3.org/TR/trace-context/#traceparent-header
_SAMPLED = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f][13579bdf]")


def exemplar(traceparent: str) -> dict[str, str] | None:
    """Labels for prometheus_client's `observe`; None unless the text is a traceparent of a sampled trace."""
    if not traceparent:
        return None
    found = _SAMPLED.fullmatch(traceparent)
    return {"trace_id": found[1]} if found else None
