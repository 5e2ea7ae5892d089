"""Machines that are processes: started once, found by name, ended with every process of theirs."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from training.plane.launcher import Handle, Offer, PodSpec, Presence, Seen
from training.plane.launchers.process import ProcessLauncher

HERE = Offer("process", 0.0)
MI = Handle("mi-1")


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
        for machine in launcher.mine():
            launcher.stop(machine, now=True)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_machine_runs_ends_and_keeps_its_exit_code(made: Callable[[str], ProcessLauncher]) -> None:
    launcher = made("echo $GREETING; exit 3")
    assert launcher.look(MI) == Seen(Presence.ABSENT)
    launcher.launch("mi-1", HERE, PodSpec({"GREETING": "hello"}, 60.0, 60.0))
    until(lambda: launcher.look(MI) == Seen(Presence.EXITED, 3))
    assert launcher.logs(MI, 100) == b"hello\n"
    launcher.stop(MI, now=True)
    launcher.forget(MI)
    assert launcher.look(MI) == Seen(Presence.ABSENT)


def test_a_machine_gives_way_and_has_a_limit_of_memory(tmp_path: Path) -> None:
    (tmp_path / "script.sh").write_text("ulimit -d; nice; cat /proc/self/oom_score_adj || echo 500")
    launcher = ProcessLauncher(tmp_path / "machines", tmp_path / "script.sh", memory=3 << 30)
    launcher.launch("mi-1", HERE, PodSpec({}, 60.0, 60.0))
    until(lambda: launcher.look(MI) == Seen(Presence.EXITED, 0))
    assert launcher.logs(MI, 100) == f"{3 << 20}\n{os.nice(0) + 10}\n500\n".encode()


def test_a_machine_is_started_once_however_often_it_is_launched(
    made: Callable[[str], ProcessLauncher], tmp_path: Path
) -> None:
    launcher = made("echo started; sleep 600")
    again = ProcessLauncher(tmp_path / "machines", tmp_path / "script.sh")
    for one in (launcher, again, launcher):
        one.launch("mi-1", HERE, PodSpec({}, 60.0, 60.0))
    until(lambda: b"started" in (launcher.logs(MI, 100) or b""))
    assert launcher.logs(MI, 100) == b"started\n"
    assert again.mine() == [MI]
    again.stop(MI, now=True)
    until(lambda: again.look(MI).presence is Presence.EXITED)
    launcher.launch("mi-1", HERE, PodSpec({}, 60.0, 60.0))
    assert launcher.look(MI).presence is Presence.EXITED


def test_a_look_at_the_same_moment_hinders_neither_a_launch_nor_another_look(
    made: Callable[[str], ProcessLauncher], tmp_path: Path
) -> None:
    launcher, folder = made("exit 3"), tmp_path / "machines" / "mi-1"
    folder.mkdir(parents=True)
    launch = threading.Thread(target=launcher.launch, args=("mi-1", HERE, PodSpec({}, 60.0, 60.0)))
    with (folder / "lock").open("w") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        launch.start()
        launch.join(0.2)
        fcntl.flock(looking, fcntl.LOCK_UN)
        launch.join(60)
        fcntl.flock(looking, fcntl.LOCK_SH)  # comes with the machine's end
        assert launcher.look(MI) == Seen(Presence.EXITED, 3)


def test_a_machine_lives_as_long_as_any_process_of_it(made: Callable[[str], ProcessLauncher], tmp_path: Path) -> None:
    launcher = made("sleep 600 & echo $$ $! > ../processes; wait")
    launcher.launch("mi-1", HERE, PodSpec({}, 60.0, 60.0))
    file = tmp_path / "machines" / "mi-1" / "processes"
    until(lambda: file.exists() and file.read_text().endswith("\n"))
    script, child = map(int, file.read_text().split())
    os.kill(script, signal.SIGKILL)
    until(lambda: (file.parent / "exit").exists())
    assert launcher.look(MI) == Seen(Presence.RUNNING)
    launcher.stop(MI, now=True)
    until(lambda: launcher.look(MI) == Seen(Presence.EXITED, 128 + signal.SIGKILL))
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_a_machine_outlives_the_process_that_started_it(made: Callable[[str], ProcessLauncher], tmp_path: Path) -> None:
    launcher = made("sleep 600")
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from training.plane.launcher import Offer, PodSpec\n"
        "from training.plane.launchers.process import ProcessLauncher\n"
        "folder = Path(sys.argv[1])\n"
        "launcher = ProcessLauncher(folder / 'machines', folder / 'script.sh')\n"
        "launcher.launch('mi-1', Offer('p', 0), PodSpec({}, 60.0, 60.0))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=250).returncode == -signal.SIGKILL
    assert launcher.look(MI) == Seen(Presence.RUNNING)


def test_the_environment_holds_nothing_of_the_plane(
    made: Callable[[str], ProcessLauncher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARKET_TRAINING_DATABASE_URL", "secret")
    launcher = made("env")
    launcher.launch("mi-1", HERE, PodSpec({"JOB_ID": "J"}, 60.0, 60.0))
    until(lambda: launcher.look(MI).presence is Presence.EXITED)
    log = (launcher.logs(MI, 100_000) or b"").decode()
    assert "JOB_ID=J" in log
    assert "secret" not in log
