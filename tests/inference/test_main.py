"""The process: one clear line when it cannot start, and a quick end."""

import os
import socket
import subprocess
import sys

import pytest


def run(**environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "inference"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def test_a_taken_port_is_one_clear_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run(MARKET_INFERENCE_LISTEN=address, MARKET_INFERENCE_METRICS_LISTEN="127.0.0.1:0")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"inference: cannot listen on {address}")
    assert "Traceback" not in done.stderr


def test_a_bad_setting_is_named():
    done = run(MARKET_INFERENCE_LISTEN="nonsense")
    assert done.returncode == 1
    assert done.stderr.startswith("inference: MARKET_INFERENCE_LISTEN=nonsense: ")
    assert "must be host:port" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("FORECAST_MODELS", "auto,autoo", "no forecaster is named 'autoo'; there are auto, auto_v1"),
        ("DEVICE", "cuda:99", "MARKET_INFERENCE_DEVICE=cuda:99"),
    ],
)
def test_a_forecaster_or_a_device_that_does_not_exist_ends_the_process(name, value, text):
    ports = {"MARKET_INFERENCE_LISTEN": "127.0.0.1:0", "MARKET_INFERENCE_METRICS_LISTEN": "127.0.0.1:0"}
    done = run(**ports, **{f"MARKET_INFERENCE_{name}": value})
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"inference: MARKET_INFERENCE_{name}")
    assert text in done.stderr
    assert "Traceback" not in done.stderr
