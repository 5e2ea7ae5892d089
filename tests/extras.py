"""Tests with an optional extra: without the packages a test is skipped and counted, and the reason names the extra.

A test file needs the packages of all imports at the top level, direct or through tests, benchmarks and recipes of
training; a test also needs the packages of `pytest.mark.needs`. An import that fails in a service or a model is an
error: the CPU path must not ask for torch.
"""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

EXTRAS = {
    "torch": "cuda",
    "pynvml": "cuda",
    "chronos": "pretrained",
    "fracast": "pretrained",
    "transformers": "pretrained",
    "peft": "training-pod",
}
"""The extra that brings a package."""


_ROOT = Path(__file__).resolve().parents[1]
_FOLLOWED = ("benchmarks", "tests", "training")


def _names(source: str) -> Iterator[str]:
    """The modules of the imports at a source's top level; for `from a import b` both a and a.b, a possible module."""
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            yield statement.module
            yield from (f"{statement.module}.{alias.name}" for alias in statement.names)


@cache
def packages(path: Path) -> frozenset[str]:
    """The packages of extras needed for an import of the file at `path`."""
    found: set[str] = set()
    waiting, seen = [path], {path}
    while waiting:
        for name in _names(waiting.pop().read_text(encoding="utf-8")):
            top = name.partition(".")[0]
            if top in EXTRAS:
                found.add(top)
            module = _ROOT.joinpath(*name.split(".")).with_suffix(".py")
            if top in _FOLLOWED and module not in seen and module.is_file():
                seen.add(module)
                waiting.append(module)
    return frozenset(found)


def missing(needed: Iterable[str]) -> str:
    """Why tests with the packages cannot run here; empty when all packages are here."""
    absent = sorted({package for package in needed if find_spec(package) is None})
    if not absent:
        return ""
    return f"needs {', '.join(absent)} (extra {', '.join(sorted({EXTRAS[package] for package in absent}))})"


class Unavailable(pytest.Module):
    """A test file without the packages of the imports."""

    reason = ""

    def collect(self) -> list[pytest.Item]:
        pytest.skip(self.reason, allow_module_level=True)


def module(path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """The collector for a test file without its packages, to skip the file; None for a file with all packages."""
    # Where every extra is installed, no file is read.
    reason = missing(EXTRAS) and missing(packages(path))
    if not reason:
        return None
    found: Unavailable = Unavailable.from_parent(parent, path=path)
    found.reason = f"{path.relative_to(_ROOT)} {reason}"
    return found


def skip(items: list[pytest.Item]) -> None:
    """Skip the tests with a mark `needs` for a package outside this environment."""
    for item in items:
        needed = (package for mark in item.iter_markers("needs") for package in mark.args)
        if reason := missing(needed):
            item.add_marker(pytest.mark.skip(reason=reason))


FRACAST = pytest.mark.needs("fracast", "torch")


def forecasters(*names: str) -> list[Any]:
    """The names as parameters of a test; a test with Fracast needs the extra of Fracast."""
    return [pytest.param(name, marks=FRACAST) if "fracast" in name else name for name in names]
