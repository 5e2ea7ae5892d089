"""Tracing that is off or misconfigured, a silent collector, and trace ids."""

import asyncio
import os
import socket
import subprocess
import sys
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.config import Config as GatewayConfig
from inference.config import Config as InferenceConfig
from market_inference.contract import deadline
from runtime.tracing import Traces
from tests.collector import Collector

SERVE = """
import asyncio, sys
from {room}.config import Config
from {room}.server import Server

async def main():
    server = Server(Config(listen="127.0.0.1:0", metrics_listen="127.0.0.1:0"))
    await server.start()
    await server.stop()

asyncio.run(main())
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""


def traces(endpoint="http://127.0.0.1:1", ratio=1.0):
    return Traces(endpoint, ratio, service="test", instance="one", version="1", setting="MARKET_TEST_OTLP_ENDPOINT")


@pytest.mark.parametrize("room", ["gateway", "inference"])
def test_without_an_endpoint_opentelemetry_is_not_imported(room, tmp_path):
    environment = {**os.environ, "MARKET_INFERENCE_STATE_DIR": str(tmp_path), "MARKET_GATEWAY_DRAIN_SECONDS": "0"}
    done = subprocess.run(
        [sys.executable, "-c", SERVE.format(room=room)],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
        timeout=250,
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("room", ["gateway", "inference"])
def test_an_endpoint_without_the_package_is_a_clear_error_at_the_start(room, tmp_path):
    """The package is hidden: the import raises ModuleNotFoundError, as for a missing package."""
    hide = "import sys; sys.modules['opentelemetry.exporter.otlp.proto.grpc.trace_exporter'] = None;"
    setting = f"MARKET_{room.upper()}_OTLP_ENDPOINT"
    ports = {f"MARKET_{room.upper()}_{name}": "127.0.0.1:0" for name in ("LISTEN", "METRICS_LISTEN")}
    done = subprocess.run(
        [sys.executable, "-c", f"{hide} from {room}.main import main; main()"],
        capture_output=True, text=True, check=False, timeout=250,
        env={**os.environ, **ports, setting: "http://127.0.0.1:4317", "MARKET_INFERENCE_STATE_DIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        f"{setting} needs packages that are not installed: pip install "
        "-c constraints/runtime.txt -e '.[traces]' in the checkout"
    )


@pytest.mark.parametrize("config", [GatewayConfig, InferenceConfig])
def test_an_endpoint_needs_http_or_https(config):
    with pytest.raises(ValidationError, match="http://HOST:PORT"):
        config(otlp_endpoint="collector:4317")
    assert config(otlp_endpoint="https://collector:4317").otlp_endpoint == "https://collector:4317"
    assert config().otlp_endpoint == ""


async def test_a_silent_collector_delays_neither_requests_nor_the_shutdown():
    """The collector accepts connections but never answers, the worse case compared with refused connections."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        made = traces(f"http://127.0.0.1:{silent.getsockname()[1]}")
        for _ in range(5000):  # more than the exporter's queue holds
            made.request("x", "server", "", deadline.now(), {}).end("OK", "", deadline.now(), {})
        await asyncio.wait_for(made.close(deadline.after(1.5)), 20)  # without the bound, the SDK waits for 30 s


async def test_the_shutdown_exports_the_remaining_spans():
    with closing(Collector()) as collector:
        made = traces(f"http://{collector.address}")
        span = made.request("last", "server", "", deadline.now(), {})
        span.end("OK", "", deadline.now(), {})
        await made.close(deadline.after(60))
        assert "last" in collector.spans("test", bytes.fromhex(span.traceparent.split("-")[1]))


@given(st.binary(min_size=16, max_size=16).filter(any), st.binary(min_size=8, max_size=8).filter(any), st.booleans())
def test_a_trace_keeps_id_and_sampling_decision_of_the_caller(trace_id, span_id, sampled):
    span = shared().request("x", "server", f"00-{trace_id.hex()}-{span_id.hex()}-0{int(sampled)}", 0.0, {})
    version, same, own, flags = span.traceparent.split("-")
    assert (version, same, flags) == ("00", trace_id.hex(), f"0{int(sampled)}")
    assert own != span_id.hex()
    assert span.sampled is sampled


@given(st.text())
def test_a_malformed_traceparent_starts_a_new_trace(rubbish):
    span = shared().request("x", "server", rubbish, 0.0, {})
    assert len(span.traceparent) == 55


_SHARED: list[Traces] = []


def shared() -> Traces:
    if not _SHARED:
        _SHARED.append(traces())
    return _SHARED[0]


@pytest.fixture(scope="module", autouse=True)
def _close_the_shared_one():
    yield
    for one in _SHARED:
        asyncio.run(one.close(deadline.now()))
