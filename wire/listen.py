"""Addresses to listen on, and the line that tells a parent process where a service listens."""

import json
import sys
from typing import Annotated

from pydantic import AfterValidator


def check(address: str) -> str:
    """The address itself. Raises ValueError when it is not host:port."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError("must be host:port, such as 127.0.0.1:8470")
    return address


Address = Annotated[str, AfterValidator(check)]
"""host:port; port 0 lets the system choose."""


def split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def is_loopback(address: str) -> bool:
    host, _ = split(address)
    return host in {"localhost", "::1"} or host.startswith("127.")


def announce(*, listen: str, metrics: str) -> None:
    """Print the one line that a service writes to stdout, once it accepts calls."""
    sys.stdout.write(json.dumps({"event": "ready", "listen": listen, "metrics": metrics}) + "\n")
    sys.stdout.flush()
