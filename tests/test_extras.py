"""Which tests a missing extra skips."""

import sys
from pathlib import Path

import pytest

from tests import extras

pytest_plugins = ["pytester"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "test_some.py"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("import torch\n", {"torch"}),
        ("from torch.nn import functional as F\nimport transformers.models\n", {"torch", "transformers"}),
        ("import numpy as np\nfrom models.sentiment import encoder\n", set()),
        ("from benchmarks import evaluate_sentiment\n", {"torch"}),
        ("from tests.models.sentiment.test_language import ROWS\n", {"torch"}),
        ("def test_late():\n    import torch\n", set()),
    ],
)
def test_a_file_needs_the_packages_that_it_imports_itself_or_through_tools(
    source: Path, content: str, expected: set[str]
) -> None:
    source.write_text(content, encoding="utf-8")
    assert extras.packages(source) == expected


def test_the_reason_names_packages_and_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(extras.EXTRAS, "no_such_package", "pretrained")
    assert extras.missing({"no_such_package", "pytest"}) == "needs no_such_package (extra pretrained)"
    assert extras.missing({"pytest"}) == ""


def test_a_file_without_its_package_is_one_skip_and_a_marked_test_another(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(extras.EXTRAS, "no_such_package", "pretrained")
    monkeypatch.setattr(extras, "_ROOT", pytester.path)
    monkeypatch.setitem(sys.modules, "conftest_extras", extras)
    pytester.makeconftest(
        """
        import conftest_extras as extras

        def pytest_pycollect_makemodule(module_path, parent):
            return extras.module(module_path, parent)

        def pytest_collection_modifyitems(items):
            extras.skip(items)
        """
    )
    pytester.makepyfile(
        test_file="import no_such_package\n\ndef test_one(): pass\ndef test_two(): pass\n",
        test_mark="""
        import pytest

        @pytest.mark.needs("no_such_package")
        def test_marked(): raise AssertionError

        @pytest.mark.needs("pytest")
        def test_here(): pass
        """,
    )
    result = pytester.runpytest_inprocess("-rs", "-W", "ignore", "-p", "no:asyncio")
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(
        ["*test_file.py needs no_such_package (extra pretrained)*", "*test_mark.py*needs no_such_package*"],
    )
