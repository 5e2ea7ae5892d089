"""`market-inference serve` and `demo` with real services."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.serve_process import COMMAND, serving


@pytest.fixture
def signals_of_a_terminal() -> Iterator[None]:
    """Under nohup, a child inherits an ignored SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
@pytest.mark.usefixtures("signals_of_a_terminal")
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=["TERM", "HUP", "KILL"])
def test_serve_says_where_it_listens_and_ends_with_its_children(tmp_path: Path, end: signal.Signals) -> None:
    environment = {**os.environ, "MARKET_INFERENCE_STATE_DIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with serving(environment, tmp_path) as served:
        pid = served.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        gateway = re.search(r"^gateway +(\S+)$", served.said, re.MULTILINE)
        assert gateway
        at = re.search(r"^page +(\S+)", served.said, re.MULTILINE)
        assert at
        with urllib.request.urlopen(at[1], timeout=60) as opened:  # noqa: S310 -- our own URL
            page = opened.read()
        status = [*COMMAND, "status", "--json", "--target", gateway[1]]
        answer = subprocess.run(status, env=environment, capture_output=True, text=True, check=True, timeout=250)
        served.process.send_signal(end)
        assert served.process.wait(60) == (0 if end != signal.SIGKILL else -end)
    assert json.loads(answer.stdout)["health"] == "healthy"
    assert page.startswith(b"<!doctype html>")
    assert len(children) == 3
    eventually(lambda: not any(map(_runs, children)))


@pytest.mark.slow
def test_the_demo_prints_its_tables_writes_its_chart_and_leaves_no_process(tmp_path: Path) -> None:
    chart = tmp_path / "charts" / "forecast.png"
    ran = subprocess.run(
        [sys.executable, "-m", "market_inference", "demo", "--output", str(chart)],
        capture_output=True,
        text=True,
        check=True,
        timeout=250,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    for expected in (
        "80% interval",
        "AAPL",
        "FB",
        "RSI 14",
        "positive",
        "200 calls",
        str(chart),
        "http://127.0.0.1:8472/",
    ):
        assert expected in ran.stdout
    assert chart.read_bytes().startswith(b"\x89PNG")
    sample = chart.with_name("AAPL.csv").read_text().splitlines()
    assert sample[0] == "date,open,high,low,close,volume"
    assert (len(sample), sample[-1].split(",")[0]) == (751, "2013-03-01")
    assert not [line for line in _environments() if str(tmp_path) in line]
    assert not list(tmp_path.glob("market-inference-*"))


def _runs(pid: str) -> bool:
    """Whether a process runs. A zombie does not count: after the parent's end the exit status may stay unread."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _environments() -> list[str]:
    """The environments of all processes that are this user's to read."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            found.append(path.read_text(errors="replace"))
        except OSError:
            continue
    return found
