"""Tests of tests/guard.py and tests/workers.py: a run in which something blocks ends, with stacks and a test's name."""

from pathlib import Path
from subprocess import CompletedProcess

import psutil
import pytest

from tests.inner_run import run_suite

# A deadlock in C that keeps the interpreter: no exception of a signal gets through.
BLOCK = """
import ctypes

def block():
    lock, c = ctypes.create_string_buffer(64), ctypes.PyDLL(None)
    c.pthread_mutex_lock(lock)
    c.pthread_mutex_lock(lock)
"""
# Each of these outlasts pytest-timeout. One test a file: a new worker then gets a single test.
HANGS = {
    "test_c": """
    import pathlib, subprocess, pytest
    from block import block

    @pytest.mark.timeout(5)
    def test_that_blocks_in_c():
        child = subprocess.Popen(["sleep", "3600"])
        (pathlib.Path(__file__).parent / "child").write_text(str(child.pid))
        block()
    """,
    "test_teardown": """
    import threading, pytest

    @pytest.fixture
    def stuck_teardown():
        yield
        threading.Event().wait()

    @pytest.mark.timeout(5)
    def test_that_fails_before_the_teardown(stuck_teardown):
        assert [1] == [2]
    """,
    "test_swallowed": """
    import threading, pytest

    @pytest.mark.timeout(5)
    def test_that_swallows_the_timeout():
        try:
            threading.Event().wait()
        except BaseException:
            threading.Event().wait()
    """,
}
SESSION = """
import pytest
from block import block

@pytest.fixture(scope="session")
def stuck_session():
    yield
    block()

@pytest.mark.timeout(2)
def test_of_a_stuck_session_fixture(stuck_session):
    pass
"""
PASSES = "def test_that_passes(): pass\n"
THREAD = """
import threading
from tests import conftest, guard

conftest.END_SECONDS = 0.1
guard.EXIT = 0.25

def test_that_leaves_a_thread():
    threading.Thread(target=threading.Event().wait, name="left").start()
"""
STOPPED = """
import os, signal

def test_that_stops_its_process():
    os.kill(os.getpid(), signal.SIGSTOP)
"""
# The limit counts from the start of a test: on a busy machine, the start of a worker takes longer than a short limit.
QUICK_CONTROLLER = """
import threading
from tests import guard

guard.SILENCE = 0.1
_begun = threading.Event()

def pytest_configure(config):
    if hasattr(config, "workerinput"):
        return

    def give_news():
        while not _begun.wait(0.1):
            if (controller := config.pluginmanager.get_plugin("guard")) is not None:
                controller._news()

    threading.Thread(target=give_news, daemon=True).start()

def pytest_runtest_logstart():
    _begun.set()
"""


def run(folder: Path, files: dict[str, str], *options: str) -> CompletedProcess[str]:
    """Run pytest on these files."""
    for name, text in ({"block": BLOCK} | files).items():
        lines = text.splitlines()
        indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
        (folder / f"{name}.py").write_text("\n".join(line[indent:] for line in lines), encoding="utf-8")
    return run_suite(folder, *options)


def test_every_hang_is_named_and_the_other_tests_run(tmp_path):
    passing = {f"test_z{at}": PASSES for at in range(4)}
    done = run(tmp_path, HANGS | passing, "-n", "2", "--timeout", "60")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    for file, name in (
        ("test_c", "test_that_blocks_in_c"),
        ("test_teardown", "test_that_fails_before_the_teardown"),
        ("test_swallowed", "test_that_swallows_the_timeout"),
    ):
        assert f"crashed while running '{file}.py::{name}'" in done.stdout
    for function in ("test_that_blocks_in_c", "stuck_teardown", "test_that_swallows_the_timeout"):
        assert f" in {function}\n" in done.stderr
    assert "4 failed, 4 passed" in done.stdout  # the test that failed by itself counts twice
    child = int((tmp_path / "child").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_a_session_fixture_that_does_not_end_fails_the_run(tmp_path):
    done = run(tmp_path, {"test_session": SESSION}, "-n", "1", "--timeout", "60")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "crashed while running 'test_session.py::test_of_a_stuck_session_fixture'" in done.stdout
    assert " in stuck_session\n" in done.stderr


def test_a_thread_at_the_exit_ends_the_process(tmp_path):
    done = run(tmp_path, {"test_thread": THREAD}, "--timeout", "20")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "left behind by the tests of this session: ['thread left']" in done.stdout
    assert "Timeout (0:00:05)!" in done.stderr
    assert "_shutdown" in done.stderr


def test_workers_without_news_are_ended(tmp_path):
    done = run(tmp_path, {"test_stopped": STOPPED, "conftest": QUICK_CONTROLLER}, "-n", "1", "--timeout", "20")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "No news from any worker for 2 s" in done.stderr
    assert "crashed while running 'test_stopped.py::test_that_stops_its_process'" in done.stdout
