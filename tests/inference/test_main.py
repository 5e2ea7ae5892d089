"""The process: one clear line when it cannot start, and a quick end."""

import os
import socket
import subprocess
import sys


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
    assert "listen" in done.stderr
    assert "must be host:port" in done.stderr
    assert "Traceback" not in done.stderr
