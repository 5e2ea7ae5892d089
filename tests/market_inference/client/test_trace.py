"""The traceparent that the client takes from the caller's active span."""

import subprocess
import sys

from market_inference.client import trace


def test_the_client_does_not_import_opentelemetry():
    code = "import sys, market_inference; market_inference.Client; from market_inference.client import trace;"
    code += "trace.active(); print('opentelemetry' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=250).stdout
        == "False\n"
    )


def test_the_client_finds_the_active_span(active_span):
    assert trace.active().startswith(f"00-{active_span.trace_id:032x}-{active_span.span_id:016x}-")


def test_without_an_active_span_the_client_sends_no_traceparent():
    assert trace.active() == ""
