"""The documented local runs, with the real SDK in child processes."""

import ast
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from contextlib import contextmanager

import pytest

MARKER = "okapi"
ENVIRONMENT = {"MARKET_INFERENCE_DEVICE": "cpu"}


@contextmanager
def start(*options, **settings):
    """The worker as a child process, which ends with the block."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RUNPOD_")}
    with subprocess.Popen(
        [sys.executable, "-m", "serverless", *options],
        env={**environment, **ENVIRONMENT, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        try:
            yield run
        finally:
            run.kill()


@pytest.mark.slow
def test_test_input_prints_health_and_ends_well():
    with start("--test_input", '{"input": {"action": "health"}}') as run:
        output, errors = run.communicate(timeout=250)
    assert run.returncode == 0, errors
    result = ast.literal_eval(re.search(r"Job result: (\{.*\})", output)[1])
    health = result["output"]["output"]
    assert health["status"] == "healthy"
    assert all(model["test"] == "passed" for model in health["models"].values())


@pytest.mark.slow
def test_test_input_with_a_mistake_exits_with_1_and_does_not_print_the_input():
    given = {"input": {"action": "sentiment", "texts": [MARKER, " "], "model": "nope"}}
    with start("--test_input", json.dumps(given)) as run:
        output, errors = run.communicate(timeout=250)
    assert run.returncode == 1
    assert "no sentiment model named 'nope'" in output
    assert MARKER not in output + errors


def test_a_bad_setting_is_reported_in_one_line_and_ends_at_once():
    with start(MARKET_SERVERLESS_STREAMING="perhaps") as run:
        output, errors = run.communicate(timeout=250)
    assert run.returncode != 0
    assert "MARKET_SERVERLESS_STREAMING=perhaps" in errors
    assert "Traceback" not in errors
    assert output == ""


def address(run):
    """Wait until the SDK's server listens; its address."""
    for line in run.stderr:
        if found := re.search(r"running on (http://127\.0\.0\.1:\d+)", line):
            return found[1]
    raise AssertionError("the SDK's server did not start")


@pytest.mark.slow
def test_serve_api_answers_as_the_platform_would():
    def post(path, given=None):
        body = json.dumps({"input": given} if given else {}).encode()
        request = urllib.request.Request(  # noqa: S310 -- loopback
            base + path, body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 -- loopback
            return json.load(response)

    with start("--rp_serve_api", "--rp_api_host", "127.0.0.1", "--rp_api_port", "0") as run:
        try:
            base = address(run)
            series = [100.0 + at % 7 for at in range(60)]
            done = post("/runsync", {"action": "predict", "time_series": series, "horizon": 3, "request_id": "mine"})
            assert done["status"] == "COMPLETED"
            assert done["output"]["request_id"] == "mine"
            assert len(done["output"]["output"]["forecasts"][0]["forecast"]["point"]) == 3
            stashed = post("/run", {"action": "sentiment", "text": "Profit rose sharply."})
            found = post(f"/status/{stashed['id']}")
            assert found["output"]["output"]["sentiments"][0]["sentiment"]["label"] == "positive"
            failed = post("/runsync", {"action": "predict", "time_series": [1, 2], "horizon": 3})
            assert (failed["status"], failed["error"]) == ("FAILED", "time_series too short (min 30, got 2)")
        finally:
            run.send_signal(signal.SIGTERM)
            _, errors = run.communicate(timeout=250)
    assert "Traceback" not in errors


def test_importing_the_handler_loads_no_model_library():
    """The worker answers its first health check before the model libraries are loaded, which takes seconds."""
    heavy = "torch transformers talib numpy protovalidate"
    program = f"import sys, serverless.handler; print([name for name in {heavy.split()!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=250)
    assert done.stdout.splitlines()[-1] == "[]"
