"""`market-inference serve` and `demo` with real services."""

import json
import os
import re
import signal
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.market_inference.test_import_root import CALL, Folder
from tests.serve_process import COMMAND, Serving, serving


@pytest.fixture
def signals_of_a_terminal() -> Iterator[None]:
    """Under nohup, a child inherits an ignored SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
@pytest.mark.usefixtures("signals_of_a_terminal")
@pytest.mark.parametrize("end", [signal.SIGHUP, signal.SIGKILL], ids=["HUP", "KILL"])
def test_serve_ends_with_its_children(tmp_path: Path, end: signal.Signals) -> None:
    environment = {**os.environ, "MARKET_INFERENCE_STATE_DIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with serving(environment, tmp_path) as served:
        ends_with_its_children(served, end)


@pytest.mark.slow
def test_serve_in_a_users_folder_answers_the_client_the_commands_and_the_browser(tmp_path: Path) -> None:
    """The files of the user raise on import: services, client and commands ignore them."""
    folder = Folder(tmp_path / "folder of a user")
    with serving(folder.environment, folder.path) as served:
        found = dict(re.findall(r"^(\w+) +(\S+)", served.said, re.MULTILINE))
        gateway = found["gateway"]
        with urllib.request.urlopen(found["page"], timeout=60) as opened:  # noqa: S310 -- our own URL
            assert opened.read().startswith(b"<!doctype html>")
        assert json.loads(folder.run(*COMMAND, "status", "--json", "--target", gateway))["health"] == "healthy"
        assert folder.run(sys.executable, "-c", CALL, gateway) == "3\n"
        forecast = json.loads(folder.run(*COMMAND, "predict", "--csv", "bars.csv", "--json", "--target", gateway))
        assert [one["symbol"] for one in forecast] == ["bars"]
        replay = ("watch", "--csv", "bars.csv", "--speed", "max", "--target", gateway)
        assert "bar 110 of 110" in folder.run(*COMMAND, *replay)
        ends_with_its_children(served, signal.SIGTERM)


def ends_with_its_children(served: Serving, end: signal.Signals) -> None:
    pid = served.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 3
    served.process.send_signal(end)
    assert served.process.wait(60) == (0 if end != signal.SIGKILL else -end)
    eventually(lambda: not any(map(_runs, children)))


@pytest.mark.slow
def test_the_demo_in_a_users_folder_prints_its_tables_writes_its_chart_and_leaves_no_process(tmp_path: Path) -> None:
    """The files of the user raise on import: the demo ignores them."""
    chart, folder = tmp_path / "charts" / "forecast.png", Folder(tmp_path / "folder of a user")
    folder.environment["TMPDIR"] = str(tmp_path)
    said = folder.run(*COMMAND, "demo", "--output", str(chart), "--device", "cpu")
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
        assert expected in said
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
