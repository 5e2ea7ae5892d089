"""Listening addresses: settings, binding, and the ready line on stdout.

A parent process reads the ready line to learn the ports that the system chose.
"""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated

from pydantic import AfterValidator


def check(address: str) -> str:
    """The address unchanged. Raises ValueError unless the address is host:port."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError("must be host:port, such as 127.0.0.1:8470")
    return address


Address = Annotated[str, AfterValidator(check)]
"""host:port; port 0 lets the system choose."""


def check_loopback(address: str) -> str:
    """The address unchanged, or "" for none. Raises ValueError if other machines can reach the address."""
    if address and not is_loopback(check(address)):
        raise ValueError("must be on loopback, such as 127.0.0.1:8480")
    return address


Loopback = Annotated[str, AfterValidator(check_loopback)]
"""host:port on loopback, or empty for none."""


def split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def is_loopback(address: str) -> bool:
    host, _ = split(address)
    return host in {"localhost", "::1"} or host.startswith("127.")


class CannotListenError(Exception):
    """The address is in use by another process, or not an address of this machine."""


def bind(add_port: Callable[[str], int], address: str) -> str:
    """The bound address, with the port that the system chose in place of 0. Raises CannotListenError.

    `add_port` binds a "host:port" and returns the port, as grpc.aio.Server.add_insecure_port does.
    """
    try:
        port = add_port(address)
    except (RuntimeError, OSError) as error:
        raise CannotListenError(f"cannot listen on {address}: in use, or not an address of this machine") from error
    return f"{address.rpartition(':')[0]}:{port}"


def announce(*, listen: str, metrics: str) -> None:
    """Write the ready line to stdout, once the service accepts calls."""
    if sys.stdout is None:  # the process was started with a closed stdout
        return
    with suppress(OSError):  # stdout is closed at the other end
        sys.stdout.write(json.dumps({"event": "ready", "listen": listen, "metrics": metrics}) + "\n")
        sys.stdout.flush()
