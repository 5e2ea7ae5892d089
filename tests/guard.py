"""The end of a run that hangs: no process of pytest outlasts a limit, whatever blocks.

pytest-timeout raises an exception in the main thread, once per test. Some hangs outlast the exception: a call in C that
holds the interpreter, code that swallows the exception, the teardown of a failed test (pytest-timeout and pytest's
faulthandler plugin cancel their timers when a test fails), an idle worker of `pytest -n`, a thread at the exit. The
guard is the watchdog thread of faulthandler, C code without need of the interpreter: past the limit the thread writes
the stacks of all threads and ends the process with status 1. xdist then names the test and goes on in a new
worker. The limits follow pytest-timeout's: `--timeout 0` and a debugger switch the guard off.

The stacks go to the standard error. A worker writes into a file, and the controller copies the file in one piece:
faulthandler writes word by word, and two workers at once would mix their words.
"""

import contextlib
import faulthandler
import os
import tempfile
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_timeout

# Limits in units of pytest-timeout's limit: a test, or its teardown after a failure; the silence of all workers,
# up to the longest limit of one test (600 s of 300 s); the controller after the end of silent workers; the exit.
TEST, SILENCE, CONTROLLER, EXIT = 1.2, 3.0, 4.0, 0.2

_STACKS = "guard_stacks"


class Guard:
    """The limits of one process. Past a limit: all stacks, and status 1."""

    def __init__(self, config: pytest.Config) -> None:
        self._timeout = pytest_timeout.get_env_settings(config).timeout or 0.0
        file = getattr(config, "workerinput", {}).get(_STACKS)
        # pytest captures descriptor 2 during a test
        self._output = os.dup(2) if file is None else os.open(file, os.O_WRONLY | os.O_CREAT)
        self._debugger = bool(config.getoption("usepdb") or config.getoption("trace"))

    def arm(self, factor: float, timeout: float | None = None) -> None:
        """Start the limit anew: `factor` times `timeout` seconds, or the timeout of the session."""
        seconds = factor * (self._timeout if timeout is None else timeout)
        faulthandler.cancel_dump_traceback_later()
        if seconds > 0 and not self._debugger:
            faulthandler.dump_traceback_later(seconds, exit=True, file=self._output)

    def pytest_enter_pdb(self) -> None:
        self._debugger = True
        self.arm(TEST)

    def pytest_sessionfinish(self) -> None:
        self.arm(TEST)

    def pytest_unconfigure(self) -> None:
        self.arm(EXIT)


class TestGuard(Guard):
    """In a process that runs tests. An idle worker has the limit of a test."""

    def __init__(self, config: pytest.Config) -> None:
        super().__init__(config)
        self.arm(TEST)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        self.arm(TEST, _own_timeout(item))
        try:
            return (yield)
        finally:
            self.arm(TEST)

    @pytest.hookimpl(trylast=True)
    def pytest_exception_interact(self, node: pytest.Item | pytest.Collector) -> None:
        """Guard the teardown of a failed test: the other timers are off now."""
        self.arm(TEST, _own_timeout(node))


class ControllerGuard(Guard):
    """In the process that gives tests to workers: a limit from each news of a worker to the next.

    Silent workers are killed, so that xdist names their tests, and so are the child processes of the
    workers: an open output would keep the caller of pytest waiting after the run.
    """

    def __init__(self, config: pytest.Config) -> None:
        super().__init__(config)
        self._lost = False
        self._folder = tempfile.TemporaryDirectory(prefix="guard")
        self._news()
        threading.Thread(target=self._kill_silent_workers, name="guard", daemon=True).start()

    def _news(self) -> None:
        self._heard = time.monotonic()
        self.arm(CONTROLLER)

    def _kill_silent_workers(self) -> None:
        while (limit := SILENCE * self._timeout) > 0:
            if (left := self._heard + limit - time.monotonic()) > 0:
                time.sleep(left)
                continue
            self._heard = time.monotonic()
            os.write(self._output, b"No news from any worker for %d s. End of the workers.\n" % limit)
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    process.kill()

    def _file(self, node: Any) -> Path:
        """The stacks of a worker that passed a limit."""
        return Path(self._folder.name, node.gateway.id)

    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput[_STACKS] = str(self._file(node))

    def pytest_testnodeready(self) -> None:
        self._news()

    def pytest_xdist_node_collection_finished(self) -> None:
        self._news()

    def pytest_runtest_logstart(self) -> None:
        self._news()

    def pytest_runtest_logreport(self) -> None:
        self._news()

    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Show the stacks of a lost worker, and end the processes left by the worker."""
        self._news()
        if not error:
            return
        self._lost = True
        with contextlib.suppress(FileNotFoundError):  # the worker ended before the guard began
            os.write(self._output, f"Stacks of {node.gateway.id}:\n".encode() + self._file(node).read_bytes())
        mine = {"PYTEST_XDIST_WORKER": node.gateway.id, "PYTEST_XDIST_TESTRUNUID": node.workerinput["testrunuid"]}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if mine.items() <= process.environ().items():
                    process.kill()

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A run that lost a worker has failed, also when no test ran in the worker at that time."""
        super().pytest_sessionfinish()
        if self._lost and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_unconfigure(self) -> None:
        super().pytest_unconfigure()
        self._folder.cleanup()


def guard_of(config: pytest.Config) -> Guard:
    """The guard for this process of pytest."""
    runs_tests = hasattr(config, "workerinput") or config.getoption("dist", "no") == "no"
    return TestGuard(config) if runs_tests else ControllerGuard(config)


def _own_timeout(node: pytest.Item | pytest.Collector) -> float | None:
    """The seconds of a test's own timeout, if any."""
    marker = node.get_closest_marker("timeout")
    if marker is None:
        return None
    return float(marker.args[0] if marker.args else marker.kwargs["timeout"])
