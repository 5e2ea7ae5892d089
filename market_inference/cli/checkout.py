"""Where the services are: in the checkout around this package.

Owns the command and the environment of a service's process. The wheel holds the client alone; gateway, inference and
serverless are applications, run from a checkout or an image.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class NoCheckoutError(RuntimeError):
    """This package is installed without the services."""


def command(module: str, environment: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """The argument list and the environment to run `python -m module` from the checkout.

    `-P` and PYTHONPATH keep the user's own `models.py` or `gateway/` out of the process. Raises NoCheckoutError.
    """
    if not (ROOT / module.replace(".", "/") / "__main__.py").is_file():
        raise NoCheckoutError(
            f"{module} is not part of the installed client: run this command from a checkout (`make demo` installs "
            "one), or run the services' images; see docs/operations.md"
        )
    return [sys.executable, "-P", "-m", module], {**os.environ, **environment, "PYTHONPATH": str(ROOT)}
