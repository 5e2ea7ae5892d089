"""Listening addresses: settings, binding, and the ready line on stdout.

A parent process reads the ready line to learn the ports that the system chose.
"""

import errno
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator


def check(address: str) -> str:
    """The address unchanged. Raises ValueError unless the address is host:port."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError("must be host:port, such as 127.0.0.1:8470")
    return address


NO_COMPRESSION: Final = ("grpc.compression_enabled_algorithms_bitset", 1)
"""The option of a gRPC server that refuses compressed requests: some kilobytes of gzip are 16 MiB of memory."""

Address = Annotated[str, AfterValidator(check)]
"""host:port; port 0 lets the system choose."""

_UNIX: Final = "unix:"
_EXCHANGE: Final = ".exchange"
_USER_ONLY: Final = 0o600
# The kernel's bound, less the ending of exchange_path().
MOST_PATH_BYTES: Final = 107 - len(_EXCHANGE)


def is_unix(address: str) -> bool:
    """Whether the address is unix:/path, a Unix socket."""
    return address.startswith(_UNIX)


def exchange_path(address: str) -> str:
    """The path of the Exchange socket beside the gRPC server at unix:/path; empty for host:port."""
    return address.removeprefix(_UNIX) + _EXCHANGE if is_unix(address) else ""


def check_any(address: str) -> str:
    """The address unchanged. Raises ValueError unless the address is host:port or unix:/path."""
    if not is_unix(address):
        return check(address)
    path = address.removeprefix(_UNIX)
    if not path.startswith("/") or len(path.encode()) > MOST_PATH_BYTES:
        raise ValueError(f"must be unix: and an absolute path of at most {MOST_PATH_BYTES} bytes")
    return address


AnyAddress = Annotated[str, AfterValidator(check_any)]
"""host:port, or unix:/path for processes of the same user on this machine."""


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
    """Whether the address is reached from this machine only."""
    if is_unix(address):
        return True
    host, _ = split(address)
    return host in {"localhost", "::1"} or host.startswith("127.")


class CannotListenError(Exception):
    """The address is in use by another process, or not an address of this machine."""


def bind(add_port: Callable[[str], int], address: str) -> str:
    """The bound address, with the port that the system chose in place of 0. Raises CannotListenError.

    `add_port` binds an address and returns the port at once, as grpc.aio.Server.add_insecure_port does. The file of
    a Unix socket is for this user only (mode 0600).
    """
    if is_unix(address):
        _refuse_in_use(address)
    try:
        if is_unix(address):
            # gRPC binds and listens in one call: the file must be private from its beginning.
            with _private_files():
                port = add_port(address)
            Path(address.removeprefix(_UNIX)).chmod(_USER_ONLY)
        else:
            port = add_port(address)
    except (RuntimeError, OSError) as error:
        raise CannotListenError(f"cannot listen on {address}: in use, or not an address of this machine") from error
    return address if is_unix(address) else f"{address.rpartition(':')[0]}:{port}"


def refuse_taken(address: str) -> None:
    """Raises OSError where a process has the port at host:port: SO_REUSEPORT would share the port with this process."""
    for family, kind, protocol, _, where in socket.getaddrinfo(*split(address), type=socket.SOCK_STREAM):
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(where)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise


def _refuse_in_use(address: str) -> None:
    """Raises CannotListenError where a process listens on the Unix socket: binding would take the path from it."""
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.connect(address.removeprefix(_UNIX))
        raise CannotListenError(f"cannot listen on {address}: in use by another process")


@contextmanager
def _private_files() -> Iterator[None]:
    """Files made within the block are for this user only.

    The mask belongs to the process: the block holds no await, and other threads' folders stay usable by their owner.
    """
    mask = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(mask)


def bind_unix(path: str) -> socket.socket:
    """A socket bound at the path, for this user only (mode 0600); not listening, so no process can connect yet.

    The mask of the process stays. A file that a dead process left at the path is replaced. Raises OSError.
    """
    made, file = socket.socket(socket.AF_UNIX), Path(path)
    try:
        if file.is_socket():
            file.unlink()
        made.bind(path)
        file.chmod(_USER_ONLY)
    except BaseException:
        made.close()
        raise
    return made


def announce(*, listen: str, metrics: str) -> None:
    """Write the ready line to stdout, once the service accepts calls."""
    if sys.stdout is None:  # the process was started with a closed stdout
        return
    with suppress(OSError):  # stdout is closed at the other end
        sys.stdout.write(json.dumps({"event": "ready", "listen": listen, "metrics": metrics}) + "\n")
        sys.stdout.flush()
