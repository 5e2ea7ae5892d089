"""A child process: ready line, end, and the error after a failure."""

import os
import queue
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from market_inference.cli import checkout
from market_inference.cli.process import Ready, ServiceProcess, ServiceProcessError
from tests.eventually import eventually

Start = Callable[[str], ServiceProcess]
PARENT = """
import pathlib, signal, sys
from market_inference.cli import checkout
from market_inference.cli.process import ServiceProcess

folder = pathlib.Path(sys.argv[1])
checkout.ROOT = folder
service = ServiceProcess("service", {}, folder / "log", lambda process: None)
service.wait_ready(180)
print(service.pid, flush=True)
signal.pause()
"""
READY = 'print(\'{"event": "ready", "listen": "127.0.0.1:1", "metrics": "127.0.0.1:2"}\', flush=True)'


@pytest.fixture
def ended() -> queue.SimpleQueue[ServiceProcess]:
    return queue.SimpleQueue()


@pytest.fixture
def start(tmp_path: Path, ended: queue.SimpleQueue[ServiceProcess], monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a module with the given source from a separate checkout; kills remaining processes at the end."""
    started: list[ServiceProcess] = []
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "stub_service").mkdir()

    def run(source: str) -> ServiceProcess:
        (tmp_path / "stub_service" / "__main__.py").write_text(textwrap.dedent(source))
        started.append(ServiceProcess("stub_service", {"SETTING": "set"}, tmp_path / "log", ended.put))
        return started[-1]

    yield run
    for process in started:
        process.kill()


def test_the_ready_line_says_where_it_listens_and_sigterm_ends_it(
    start: Start, ended: queue.SimpleQueue[ServiceProcess]
) -> None:
    process = start(f"import signal\n{READY}\nsignal.pause()")
    assert process.wait_ready(180) == Ready("127.0.0.1:1", "127.0.0.1:2")
    assert process.returncode is None
    process.stop(grace=60)
    assert process.returncode == -signal.SIGTERM
    assert ended.get(timeout=60) is process


def test_one_that_ignores_sigterm_is_killed_after_its_grace(start: Start) -> None:
    process = start(
        f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{READY}\nwhile True: signal.pause()"
    )
    process.wait_ready(180)
    process.stop(grace=0.05)
    assert process.returncode == -signal.SIGKILL


def test_a_death_before_it_is_ready_carries_the_end_of_the_log(start: Start) -> None:
    process = start("import sys\nfor at in range(99): print('line', at, file=sys.stderr)\nsys.exit(3)")
    with pytest.raises(ServiceProcessError, match=r"ended with status 3(.|\n)*line 98") as caught:
        process.wait_ready(180)
    assert "line 1\n" not in str(caught.value)


def test_one_that_never_gets_ready_is_given_up(start: Start) -> None:
    process = start("import signal\nsignal.pause()")
    with pytest.raises(ServiceProcessError, match=r"did not start within 0\.05 s"):
        process.wait_ready(0.05)


def test_a_death_later_is_reported_at_once(start: Start, ended: queue.SimpleQueue[ServiceProcess]) -> None:
    process = start(f"import signal\n{READY}\nsignal.pause()")
    process.wait_ready(180)
    os.kill(process.pid, signal.SIGKILL)
    assert ended.get(timeout=60) is process
    assert "ended with status -9 and logged nothing" in str(process.failure())


def test_a_child_that_prints_more_than_a_pipe_holds_is_not_blocked(
    start: Start, ended: queue.SimpleQueue[ServiceProcess]
) -> None:
    process = start(f"{READY}\nfor _ in range(4096): print('x' * 100)")
    process.wait_ready(180)
    assert ended.get(timeout=60).returncode == 0


def test_a_child_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "__main__.py").write_text(f"import signal\n{READY}\nsignal.pause()")
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    )
    assert parent.stdout is not None
    with parent.stdout:
        try:
            child = int(parent.stdout.readline())
        finally:
            parent.kill()
            parent.wait(60)
        # Without the parent's standard output, the child ends by SIGTERM when the standard input ends.
        eventually(lambda: _has_ended(child))


def test_the_log_of_the_last_run_is_kept_and_a_running_process_keeps_its_own(start: Start, tmp_path: Path) -> None:
    talk = f"import signal, sys\nprint('run', sys.argv, file=sys.stderr, flush=True)\n{READY}\nsignal.pause()"
    first = start(talk)
    first.wait_ready(180)
    second = start(talk)
    second.wait_ready(180)
    assert (first.log, second.log) == (tmp_path / "log", tmp_path / "log-2")
    assert first.tail() == second.tail() != ""
    first.stop(60)
    third = start(f"import signal\n{READY}\nsignal.pause()")
    third.wait_ready(180)
    assert (third.log, third.tail()) == (tmp_path / "log", "")
    assert (tmp_path / "log.previous").read_text() == second.tail() + "\n"


def _has_ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie that its new parent has not noticed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_the_environment_is_the_parent_s_and_the_given(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_PARENT", "here")
    process = start("import os, sys\nsys.exit(os.environ['SETTING'] + os.environ['OF_THE_PARENT'])")
    with pytest.raises(ServiceProcessError, match="sethere"):
        process.wait_ready(180)
