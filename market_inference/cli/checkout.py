"""The checkout around this package: the home of the services.

Owns the command and the environment of a service's process. The wheel holds `market_inference` alone; gateway,
inference and serverless are applications, run from a checkout or an image.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from market_inference.cli import child

ROOT = Path(__file__).resolve().parents[2]


class NoCheckoutError(RuntimeError):
    """This package is installed without the services."""


def require(module: str) -> None:
    """Raise NoCheckoutError unless `python -m module` can run from the checkout around this package.

    A checkout has a `pyproject.toml`; an installed package called `gateway` or `inference` has none.
    """
    path = ROOT / module.replace(".", "/")
    program = (path / "__main__.py").is_file() or path.with_suffix(".py").is_file()
    if not ((ROOT / "pyproject.toml").is_file() and program):
        raise NoCheckoutError(
            f"{module} is not part of the installed client, and the services run from a checkout or an image: run this "
            "command with the market-inference of a checkout (`make demo` makes it), or start the images as "
            "docs/operations.md of the checkout says"
        )


def command(
    module: str, environment: Mapping[str, str], *, ends_with_parent: bool = False
) -> tuple[list[str], dict[str, str]]:
    """The argument list and the environment for `python -m module` from the checkout.

    `-P` keeps the working directory out of the process, and PYTHONPATH=checkout replaces the user's PYTHONPATH, so that
    the process never imports a user's `models.py` or `gateway/`. `ends_with_parent`: the process ends at the end of its
    standard input, a pipe held open by the parent (child.py). Raises NoCheckoutError.
    """
    require(module)
    program = [child.__file__] if ends_with_parent else ["-m"]
    return [sys.executable, "-P", *program, module], {**os.environ, **environment, "PYTHONPATH": str(ROOT)}
