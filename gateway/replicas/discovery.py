"""Discovery: the present addresses of the inference replicas.

Owns the way from a setting to addresses: `10.0.0.7:8471` is an address, `unix:/path` a Unix
socket of this machine, `inference:8471` stands for all addresses of a DNS name (as of a headless Service in
Kubernetes), `file:/path` for the entries of a file, one per line or separated by commas. The router repeats the look-up
and follows the changes.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.listen import check_any, is_unix, split

_FILE = "file:"
LOOK_SECONDS = 10.0


class DiscoveryError(Exception):
    """An entry that cannot be read or resolved at the moment; the text names the entry."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One replica: its address, and the name in its certificate. Unix sockets have no TLS."""

    address: str
    name: str


class Discovery:
    """The entries of one setting, separated by commas."""

    def __init__(self, setting: str) -> None:
        self._entries = _entries(setting)
        for entry in self._entries:
            if not entry.startswith(_FILE):
                check_any(entry)

    async def look(self) -> list[Endpoint]:
        """The present endpoints, each once, in a stable order. Raises DiscoveryError."""
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                found = await asyncio.gather(*(_look(entry) for entry in self._entries))
        except TimeoutError as error:
            raise DiscoveryError(f"no answer within {LOOK_SECONDS:g} s") from error
        return list(dict.fromkeys(endpoint for endpoints in found for endpoint in endpoints))


def _entries(text: str) -> list[str]:
    return [entry.strip() for entry in text.replace("\n", ",").split(",") if entry.strip()]


async def _look(entry: str) -> list[Endpoint]:
    if entry.startswith(_FILE):
        path = Path(entry.removeprefix(_FILE))
        try:
            text = await asyncio.to_thread(path.read_text, encoding="utf-8")
            return [endpoint for line in _entries(text) for endpoint in await _resolve(line)]
        except (OSError, ValueError) as error:
            raise DiscoveryError(f"{path.name}: {error}") from error
    return await _resolve(entry)


async def _resolve(entry: str) -> list[Endpoint]:
    if is_unix(check_any(entry)):
        return [Endpoint(entry, "localhost")]
    host, port = split(entry)
    if _is_ip(host):
        return [Endpoint(entry, host)]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that DNS cannot have
        raise DiscoveryError(f"{host}: {getattr(error, 'strerror', None) or error}") from error
    return [Endpoint(_joined(ip, port), host) for ip in _one_family([str(answer[4][0]) for answer in found])]


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _one_family(ips: Sequence[str]) -> list[str]:
    """The IPv4 addresses if there are any: the replicas of a dual-stack name must not count twice."""
    return sorted({ip for ip in ips if ":" not in ip}) or sorted(set(ips))


def _joined(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
