"""Every import in an image's sources is declared by the extras of the image."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
IMAGES = {
    "edge": ("edge", "runtime", "market_inference"),
    "gateway": ("gateway", "runtime", "market_inference"),
    "cpu": ("inference", "models", "runtime", "market_inference"),
    "gpu": ("inference", "models", "serverless", "runtime", "market_inference"),
}
EXTRAS = {
    "edge": ("edge", "parquet", "traces"),
    "gateway": ("gateway", "native", "profile", "traces"),
    "cpu": ("inference", "bucket", "profile", "traces"),
    "gpu": ("inference", "cuda", "pretrained", "bucket", "serverless", "profile", "traces"),
}
OURS = {"edge", "gateway", "inference", "models", "runtime", "serverless", "training", "market_inference"}
# runtime/remote/s3.py is imported by the inference service and the training plane alone.
S3 = {"boto3", "botocore", "urllib3"}
# Imported inside functions that name the missing package and the extra.
ON_DEMAND = {
    # Health and validation are imported by modules of runtime/ and of the contract that the edge does not use.
    "edge": {"matplotlib", "bokeh_sampledata", "pandas", "grpc_health", "protovalidate", "py_spy"} | S3,
    # runtime/http_server.py and http_connection.py are imported by the edge and the training plane alone.
    "gateway": {"matplotlib", "bokeh_sampledata", "pandas", "polars", "uvicorn", "httptools"} | S3,
    "cpu": {"matplotlib", "bokeh_sampledata", "pandas", "polars", "uvicorn", "httptools"}
    | {"torch", "transformers", "fracast", "chronos", "pynvml"}
    | {"protovalidate"},  # the gateway's and the serverless worker's
    "gpu": {"matplotlib", "bokeh_sampledata", "pandas", "polars", "uvicorn", "httptools"},
}
# Module -> declared distribution with this module as part of the interface.
COMES_WITH = {
    "pydantic": "pydantic-settings",
    "pydantic_core": "pydantic-settings",
    "botocore": "boto3",
    "urllib3": "boto3",
    "chronos": "chronos-forecasting",
}


distributions = cache(packages_distributions)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(image: str) -> set[str]:
    """Distributions named by the project itself and by the image's extras."""
    named = [
        *PROJECT["dependencies"],
        *(line for extra in EXTRAS[image] for line in PROJECT["optional-dependencies"][extra]),
    ]
    return {normal(re.match(r"[\w.-]+", line)[0]) for line in named}


@cache
def imported(package: str) -> dict[str, str]:
    """Third-party module -> an importing file, without imports under TYPE_CHECKING."""
    found: dict[str, str] = {}
    for file in (ROOT / package).rglob("*.py"):
        for node in outside_type_checking(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for name in names:
                top = name.partition(".")[0]
                if top and top not in OURS and top not in sys.stdlib_module_names:
                    found.setdefault(top, str(file.relative_to(ROOT)))
    return found


def outside_type_checking(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and not node.level):
        yield node
    for child in ast.iter_child_nodes(node):
        yield from outside_type_checking(child)


@pytest.mark.parametrize(
    "image", [pytest.param(image, marks=pytest.mark.needs("pynvml")) if image == "gpu" else image for image in IMAGES]
)
def test_every_import_is_declared(image):
    known, missing = distributions(), {}
    for package in IMAGES[image]:
        for module, file in imported(package).items():
            candidates = {normal(name) for name in known.get(module, [module])} | {COMES_WITH.get(module, "")}
            if module not in ON_DEMAND[image] and not candidates & declared(image):
                missing.setdefault(module, file)
    assert not missing, f"not declared in pyproject.toml: {missing}"


def test_an_undeclared_import_is_found(monkeypatch):
    monkeypatch.setitem(PROJECT, "dependencies", [])
    with pytest.raises(AssertionError, match="numpy"):
        test_every_import_is_declared("gateway")


def test_the_checked_packages_equal_the_copied_packages():
    for image, packages in IMAGES.items():
        copied = set(re.findall(r"^COPY (\w+)/ ", (ROOT / f"Dockerfile.{image}").read_text(), re.MULTILINE))
        assert set(packages) <= copied
        assert copied - set(packages) <= {"constraints"}
