"""An exemplar names a recorded trace, never an invalid trace id from a caller."""

import pytest

from runtime.metrics.exemplar import exemplar

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize("flags", ["01", "03", "ff"])
def test_a_sampled_trace_is_named(flags):
    assert exemplar(f"00-{TRACE}-{SPAN}-{flags}") == {"trace_id": TRACE}


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        f"00-{TRACE}-{SPAN}-00",
        f"00-{TRACE}-{SPAN}-02",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        "anything else",
    ],
)
def test_everything_else_is_not(traceparent):
    assert exemplar(traceparent) is None
