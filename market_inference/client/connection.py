"""How a client reaches a gateway and says who it is.

Owns targets, TLS, the API key's whereabouts and channel options; the clients own the calls.
"""

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import grpc

from market_inference.contract.state import development_key_file

DEFAULT_TARGET = "127.0.0.1:8470"
API_KEY_VARIABLE = "MARKET_INFERENCE_API_KEY"

Priority = Literal["interactive", "batch"]

CHANNEL_OPTIONS: list[tuple[str, int]] = [
    # The service owns the byte limits and refuses with a typed error; answers may be many times their request.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A call's retries are the client's own, which knows what the service advises.
    ("grpc.enable_retries", 0),
]


@dataclass(frozen=True, slots=True)
class TLS:
    """Files in PEM form. Without `roots` the system's are used; `certificate` and `private_key` are for mutual TLS.

    `server_name` is the name expected in the server's certificate, when it is not the target's.
    """

    roots: str | Path | None = None
    certificate: str | Path | None = None
    private_key: str | Path | None = None
    server_name: str = ""

    def credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.roots),
            private_key=_read(self.private_key),
            certificate_chain=_read(self.certificate),
        )

    def options(self) -> list[tuple[str, str]]:
        return [("grpc.ssl_target_name_override", self.server_name)] if self.server_name else []


def is_loopback(target: str) -> bool:
    """Whether a target such as "127.0.0.1:8470", "localhost:1" or "unix:/run/x" stays on this machine."""
    if target.startswith("unix:"):
        return True
    host = target.rsplit("/", 1)[-1].rsplit(":", 1)[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def find_key(target: str, given: str | None) -> str:
    """The key given, else $MARKET_INFERENCE_API_KEY, else on loopback the local gateway's own; "" for none."""
    if given is not None:
        return given
    if key := os.environ.get(API_KEY_VARIABLE):
        return key
    if not is_loopback(target):
        return ""
    try:
        return development_key_file().read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


def _read(path: str | Path | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()
