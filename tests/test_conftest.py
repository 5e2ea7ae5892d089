"""Tests of tests/conftest.py: the report names every failing test, and no test ends the run."""

import ast
import gc
import subprocess
import sys
from pathlib import Path

import pytest

from tests import workers

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
    command = [sys.executable, "-m", "pytest", "-n", "1", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--rootdir", tmp_path, tmp_path], capture_output=True, text=True, check=False, cwd=ROOT, timeout=100
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "test_suite.py::test_whose_report_cannot_be_made" in done.stdout
    assert "test_suite.py::test_that_becomes_another_program" in done.stdout
    assert "crashed while running 'test_suite.py::test_that_crashes'" in done.stdout
    assert "3 failed, 1 passed" in done.stdout


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
