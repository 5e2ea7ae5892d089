"""Tests of tests/conftest.py: the report names every failing test, and no test ends the run."""

import ast
import gc
from pathlib import Path

import pytest

from tests import workers
from tests.inner_run import run_suite

ROOT = Path(__file__).parents[1]
SUITE = """
import os, pytest, sys

def test_whose_report_cannot_be_made(monkeypatch):
    monkeypatch.setattr(pytest.Function, "repr_failure", broken)
    assert [1] == [2]

def broken(self, excinfo, style=None):
    raise SystemError("AST constructor recursion depth mismatch")

def test_that_becomes_another_program():
    os.execv(sys.executable, [sys.executable, "-c", ""])

def test_that_crashes():
    os.kill(os.getpid(), 9)

def test_that_passes():
    pass
"""


def test_a_failing_test_is_named_and_the_run_goes_on(tmp_path):
    (tmp_path / "test_suite.py").write_text(SUITE)
    done = run_suite(tmp_path, "-n", "1")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "test_suite.py::test_whose_report_cannot_be_made" in done.stdout
    assert "test_suite.py::test_that_becomes_another_program" in done.stdout
    assert "crashed while running 'test_suite.py::test_that_crashes'" in done.stdout
    assert "3 failed, 1 passed" in done.stdout


def test_a_process_after_a_crash_runs_groups_of_one_test(tmp_path):
    """A process waits for a second test before the first: it never came when all other processes had ended."""
    (tmp_path / "test_a.py").write_text("import os\n\ndef test_that_crashes():\n    os.kill(os.getpid(), 9)\n")
    for name in ("test_b.py", "test_c.py"):
        (tmp_path / name).write_text("def test_that_passes(): pass\n")
    done = run_suite(tmp_path, "-n", "1")
    assert "1 failed, 2 passed" in done.stdout


LEFT = """
import socket

def test_that_fails():
    left = socket.socket()
    assert left is None

def test_that_fails_too():
    assert [1] == [2]

def test_that_passes():
    pass
"""
STRICT = ("-W", "error::ResourceWarning", "-W", "error::pytest.PytestUnraisableExceptionWarning")
LEFT_IN_A_CYCLE = """
import socket

def test_that_leaves_a_socket():
    cycle = [socket.socket()]
    cycle.append(cycle)
"""


def test_what_a_failed_test_leaves_open_fails_no_other_test(tmp_path):
    (tmp_path / "test_left.py").write_text(LEFT)
    done = run_suite(tmp_path, *STRICT)
    assert " 2 failed, 1 passed in " in done.stdout
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stderr


def test_what_a_passing_test_leaves_open_fails_its_file(tmp_path):
    (tmp_path / "test_a.py").write_text(LEFT_IN_A_CYCLE)
    (tmp_path / "test_b.py").write_text("def test_that_passes(): pass\n")
    done = run_suite(tmp_path, *STRICT)
    assert "ERROR at teardown of test_that_leaves_a_socket" in done.stdout
    assert "2 passed, 1 error" in done.stdout


def test_ast_parse_succeeds_during_garbage_collections():
    """Without the guard of conftest.py, CPython 3.11.7 raises SystemError in all of these calls."""
    before = gc.get_threshold()
    gc.callbacks.append(lambda phase, info: ast.parse("a + (b * c)"))
    gc.set_threshold(5)
    try:
        for _ in range(20):
            ast.parse("a + (b * c)\n" * 200)
    finally:
        gc.set_threshold(*before)
        gc.callbacks.pop()


def test_groups_name_files_that_exist():
    for prefix in (*workers.GROUPS, *workers.FIRST):
        assert (ROOT / prefix).exists(), prefix
