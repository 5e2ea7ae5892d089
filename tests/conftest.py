"""Shared by all tests: the settings of hypothesis, checks at the end of the session, the report of failing tests."""

import ast
import functools
import gc
import os
import socketserver
import sys
import threading
import time
import traceback
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest
from hypothesis import HealthCheck, settings
from threadpoolctl import threadpool_limits

from tests import extras, guard, workers

# The speed of a busy machine is no property of the code. `make test` tries the same examples in every run, `make fuzz`
# tries new ones.
settings.register_profile(
    "project",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    print_blob=True,
)
settings.load_profile("project")

END_SECONDS = 60.0
DAY_SECONDS = 86_400.0


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(guard.guard_of(config), "guard")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return workers.GroupScheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    return extras.module(module_path, parent)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    extras.skip(items)
    if hasattr(config, "workerinput"):  # in a process of `pytest -n`
        items[:] = workers.in_order(items)
    if unstable := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        raise pytest.UsageError(f"tests named by the address of an object, give ids: {unstable}")


def _parse_alone() -> None:
    """Keep the garbage collector out of ast.parse().

    A collection during ast.parse() runs finalizers, callbacks (hypothesis has one) and other threads. Another parse
    there makes CPython before 3.11.8 and 3.12.2 raise SystemError "AST constructor recursion depth mismatch"
    (gh-106905). pytest and hypothesis parse source for the report of a failure, so the error ended the run without
    the name of the failing test.
    """
    parse = ast.parse

    @functools.wraps(parse)
    def without_collections(*arguments: Any, **options: Any) -> Any:
        enabled = gc.isenabled()
        gc.disable()
        try:
            return parse(*arguments, **options)
        finally:
            if enabled:
                gc.enable()

    ast.parse = without_collections


if sys.version_info < (3, 13):
    _parse_alone()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Report a failure, with the name of the test, also when pytest or a plugin cannot format the report."""
    try:
        return (yield)
    except Exception:  # noqa: BLE001 -- an error of any kind here would end the whole run
        shown = traceback.format_exc()
        if call.excinfo is not None:
            shown = "".join(traceback.format_exception(call.excinfo.value)) + "\nThe report failed:\n" + shown
        return pytest.TestReport(
            item.nodeid, item.location, dict.fromkeys(item.keywords, 1), "failed", shown, call.when, start=call.start,
            stop=call.stop, duration=call.duration,
        )  # fmt: skip


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Let the objects of a failed test go at the test's end.

    The traceback of a failure keeps the test's sockets and processes until the next failure: their ResourceWarning
    would fail another test.
    """
    failed = item.session.testsfailed
    found = yield
    if item.session.testsfailed > failed:
        for name in ("last_exc", "last_type", "last_value", "last_traceback"):
            vars(sys).pop(name, None)
        report, sys.unraisablehook = sys.unraisablehook, lambda _: None
        try:
            gc.collect()
        finally:
            sys.unraisablehook = report
    return found


@pytest.fixture(scope="module", autouse=True)
def own_remains() -> Iterator[None]:
    """Collect the garbage of a file's tests at the end of the file, so that its ResourceWarning names the file.

    What is left stays for long, such as imported modules and shared services: later passes skip these objects.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture
def active_span() -> Iterator[Any]:
    """The context of a recorded span, active during the test."""
    from opentelemetry.sdk.trace import TracerProvider  # takes half a second, and few tests need it

    with TracerProvider(shutdown_on_exit=False).get_tracer("caller").start_as_current_span("caller") as span:
        yield span.get_span_context()


@pytest.fixture
def one_day() -> None:
    """Begin a test of quotas of a day, or of budgets of a month, after midnight UTC if midnight is near."""
    left = DAY_SECONDS - time.time() % DAY_SECONDS
    if left < END_SECONDS:
        time.sleep(left + 1.0)


def _refuse(*arguments: object) -> NoReturn:
    raise AssertionError("exec in the test process would end the run as if all tests had passed: use a subprocess")


@pytest.fixture(scope="session", autouse=True)
def no_exec() -> Iterator[None]:
    """Make exec in the test process an error."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("execv", "execve"):
            patch.setattr(os, name, _refuse)
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_collections() -> None:
    """Set the imported modules aside from the garbage collector, as the services do: a full pass takes 0.25 s."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread() -> Iterator[None]:
    """Give numpy's matrix products one thread, as the inference service does: waiting threads spin.

    On busy cores the spinning took two thirds of the CPU of the forecasters' tests.
    """
    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_stop() -> Iterator[None]:
    """Stop HTTP servers of the standard library at once; by default, the stop takes half a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socketserver.BaseServer.serve_forever, "__defaults__", (0.01,))
        yield


@pytest.fixture(scope="session", autouse=True)
def nothing_left() -> Iterator[None]:
    """Fail when a child process, a non-daemon thread or a listening port outlives the session."""
    yield
    gc.unfreeze()
    gc.collect()
    us = psutil.Process()
    children = us.children(recursive=True)
    _, alive = psutil.wait_procs(children, timeout=END_SECONDS)
    left = [f"process {' '.join(process.cmdline())}" for process in alive]
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(END_SECONDS)
            left += [f"thread {thread.name}"] if thread.is_alive() else []
    left += [
        f"port {connection.laddr.port}"
        for connection in us.net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert not left, f"left behind by the tests of this session: {left}"
