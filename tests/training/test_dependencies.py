"""What the plane and the machines import is declared by their extras."""

import re

import pytest

from tests.images.test_dependencies import COMES_WITH, PROJECT, distributions, imported, normal

WAYS = {
    # The plane checks callers as the gateway does, and starts like the other services.
    "training": (("training/plane", "gateway/access", "runtime"), ("training", "gateway", "traces", "profile")),
    "training-pod": (
        ("training/pod", "training/recipes", "models"),
        ("training-pod", "inference", "cuda", "pretrained"),
    ),
}


def declared(extras: tuple[str, ...]) -> set[str]:
    lines = [*PROJECT["dependencies"], *(one for extra in extras for one in PROJECT["optional-dependencies"][extra])]
    return {normal(re.match(r"[\w.-]+", line)[0]) for line in lines}


@pytest.mark.parametrize("way", WAYS)
def test_every_import_is_declared(way: str) -> None:
    packages, extras = WAYS[way]
    known, missing = distributions(), {}
    comes_with = {
        **COMES_WITH,
        "starlette": "fastapi",
        "yaml": "pyyaml",
        "typing_extensions": "pydantic",
    }
    for package in packages:
        for module, file in imported(package).items():
            candidates = {normal(name) for name in known.get(module, [module])} | {comes_with.get(module, "")}
            if not candidates & declared(extras):
                missing.setdefault(module, file)
    assert not missing, f"not declared in pyproject.toml: {missing}"
