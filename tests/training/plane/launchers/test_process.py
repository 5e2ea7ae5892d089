"""Machines that are processes: started once, found by name, ended with every process of theirs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from training.plane.launcher import Offer, PodSpec, Presence, Seen
from training.plane.launchers.process import ProcessLauncher

HERE = Offer("process", 0.0)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[[str], ProcessLauncher]]:
    """Launchers whose script is given as text."""
    launchers: list[ProcessLauncher] = []

    def make(script: str) -> ProcessLauncher:
        file = tmp_path / "script.sh"
        file.write_text(script)
        launchers.append(ProcessLauncher(tmp_path / "machines", file))
        return launchers[-1]

    yield make
    for launcher in launchers:
        for name in launcher.mine():
            launcher.stop(name, now=True)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_machine_runs_ends_and_keeps_its_exit_code(made: Callable[[str], ProcessLauncher]) -> None:
    launcher = made("echo $GREETING; exit 3")
    assert launcher.look("mi-1") == Seen(Presence.ABSENT)
    launcher.launch("mi-1", HERE, PodSpec({"GREETING": "hello"}))
    until(lambda: launcher.look("mi-1") == Seen(Presence.EXITED, 3))
    assert launcher.logs("mi-1", 100) == b"hello\n"
    launcher.stop("mi-1", now=True)
    launcher.forget("mi-1")
    assert launcher.look("mi-1") == Seen(Presence.ABSENT)


def test_a_machine_is_started_once_however_often_it_is_launched(
    made: Callable[[str], ProcessLauncher], tmp_path: Path
) -> None:
    launcher = made("echo started; sleep 60")
    again = ProcessLauncher(tmp_path / "machines", tmp_path / "script.sh")
    for one in (launcher, again, launcher):
        one.launch("mi-1", HERE, PodSpec({}))
    until(lambda: b"started" in (launcher.logs("mi-1", 100) or b""))
    assert launcher.logs("mi-1", 100) == b"started\n"
    assert again.mine() == ["mi-1"]
    again.stop("mi-1", now=True)
    until(lambda: again.look("mi-1").presence is Presence.EXITED)
    launcher.launch("mi-1", HERE, PodSpec({}))
    assert launcher.look("mi-1").presence is Presence.EXITED


def test_a_machine_lives_as_long_as_any_process_of_it(made: Callable[[str], ProcessLauncher], tmp_path: Path) -> None:
    launcher = made("sleep 60 & echo $$ $! > ../processes; wait")
    launcher.launch("mi-1", HERE, PodSpec({}))
    file = tmp_path / "machines" / "mi-1" / "processes"
    until(lambda: file.exists() and file.read_text().endswith("\n"))
    script, child = map(int, file.read_text().split())
    os.kill(script, signal.SIGKILL)
    until(lambda: (file.parent / "exit").exists())
    assert launcher.look("mi-1") == Seen(Presence.RUNNING)
    launcher.stop("mi-1", now=True)
    until(lambda: launcher.look("mi-1") == Seen(Presence.EXITED, 128 + signal.SIGKILL))
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_a_machine_outlives_the_process_that_started_it(made: Callable[[str], ProcessLauncher], tmp_path: Path) -> None:
    launcher = made("sleep 60")
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from training.plane.launcher import Offer, PodSpec\n"
        "from training.plane.launchers.process import ProcessLauncher\n"
        "folder = Path(sys.argv[1])\n"
        "ProcessLauncher(folder / 'machines', folder / 'script.sh').launch('mi-1', Offer('p', 0), PodSpec({}))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)]).returncode == -signal.SIGKILL
    assert launcher.look("mi-1") == Seen(Presence.RUNNING)


def test_the_environment_holds_nothing_of_the_plane(
    made: Callable[[str], ProcessLauncher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARKET_TRAINING_DATABASE_URL", "secret")
    launcher = made("env")
    launcher.launch("mi-1", HERE, PodSpec({"JOB_ID": "J"}))
    until(lambda: launcher.look("mi-1").presence is Presence.EXITED)
    log = (launcher.logs("mi-1", 100_000) or b"").decode()
    assert "JOB_ID=J" in log
    assert "secret" not in log
