"""The connection of a client to a gateway: target, TLS, API key and channel options.

Owns the checks of these arguments, and the hints about target, proxy and key in the errors of calls. client.py and
aio.py own the calls.
"""

import ipaddress
import os
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import grpc

from market_inference.client import caller
from market_inference.client.inputs import arguments
from market_inference.contract.methods import MAX_ANSWER_BYTES, METHODS
from market_inference.contract.state import development_key_file
from market_inference.errors import (
    ArgumentError,
    DeadlineExceededError,
    MarketInferenceError,
    UnauthenticatedError,
    UnavailableError,
)

DEFAULT_PORT = 8470
DEFAULT_TARGET = f"127.0.0.1:{DEFAULT_PORT}"
API_KEY_VARIABLE = "MARKET_INFERENCE_API_KEY"
_VARIABLES = (API_KEY_VARIABLE, "MARKET_INFERENCE_STATE_DIR", "MARKET_INFERENCE_TARGET")
_PREFIX = API_KEY_VARIABLE.removesuffix("API_KEY")

Priority = Literal["interactive", "batch"]

KEEPALIVE_SECONDS = 20
KEEPALIVE_TIMEOUT_SECONDS = 10
"""A connection that died silently is noticed within the sum of the two."""
RECONNECT_MILLISECONDS = 1000
CONNECT_MILLISECONDS = 5000
"""The time until an attempt to connect without an answer is given up for the next one."""

# gRPC's schemes for addresses; everything else with :// is a URL.
_SCHEMES = ("dns:", "unix:", "unix-abstract:", "ipv4:", "ipv6:", "xds:", "vsock:")
_PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
_NO_PROXY_VARIABLES = ("no_grpc_proxy", "no_proxy")
_TLS_CAUSES = {
    "CERTIFICATE_VERIFY_FAILED": "the certificate of {target} is not trusted (or has expired): give the authority's "
    "file with tls=TLS(roots=...) (--tls-ca on the command line)",
    "Hostname Verification": "the certificate of {target} is not for {host}: give a name that the certificate has, as "
    "target or with TLS(server_name=...)",
    "WRONG_VERSION_NUMBER": "{target} answers without TLS: leave tls= out (--tls, --tls-ca)",
    "Socket closed": "{target} closed the connection: does it ask for a certificate, TLS(certificate=..., "
    "private_key=...)?",
}
_CAUSES = {
    "Socket closed": "{target} closed the connection: does it expect TLS, tls=True (--tls, or --tls-ca FILE)?",
    "Failed parsing HTTP/2": "{target} does not speak gRPC: the gateway's port is 8470 by default, 8472 the edge's",
    "refused": "nothing answers at {target} (connection refused): start a service with `market-inference serve`, or "
    "give another target",
}
"""Parts of gRPC's text, and what they mean."""


def channel_options(target: str) -> list[tuple[str, int]]:
    """Options of a channel to the target."""
    options = [
        # The service owns the byte limits of requests, and refuses with a typed error.
        ("grpc.max_send_message_length", -1),
        # Twice the contract's largest answer. Services do not compress: some kilobytes of gzip are many megabytes.
        ("grpc.max_receive_message_length", 2 * MAX_ANSWER_BYTES),
        ("grpc.compression_enabled_algorithms_bitset", 1),
        # Answers of a universe are megabytes, which gRPC copies frame by frame: a seventh of the client's CPU time.
        ("grpc.http2.max_frame_size", 1 << 20),
        # The client retries itself, after the pause that the service advises.
        ("grpc.enable_retries", 0),
        # A NAT time-out or a laptop's sleep ends a connection without a word: only a ping without an answer tells.
        ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_SECONDS * 1000),
        # gRPC's own pings, which measure bandwidth, stand in for a keepalive ping, with a minute for the answer.
        ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_SECONDS * 1000),
        # By default gRPC stops after two pings on a connection without data, such as an idle session's.
        ("grpc.http2.max_pings_without_data", 0),
        # By default the pauses between attempts to connect grow to two minutes, in which a service is long back.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", RECONNECT_MILLISECONDS),
        ("grpc.min_reconnect_backoff_ms", CONNECT_MILLISECONDS),
        ("grpc.dns_min_time_between_resolutions_ms", RECONNECT_MILLISECONDS),
        # By default all channels of a process to one target share a connection, and so the connection's limit of calls.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if is_loopback(target):
        options.append(("grpc.enable_http_proxy", 0))
    return options


def methods(channel: Any) -> dict[str, Any]:
    """The callables of all RPCs but Watch by name, with serialised messages in and out."""
    found = {row.name: channel.unary_unary(row.path) for row in METHODS.values() if not row.streams}
    return {**found, "Stream": channel.stream_stream(METHODS["Stream"].path)}


@dataclass(frozen=True, slots=True)
class TLS:
    """Files in PEM form. Without `roots` the system's are used; `certificate` and `private_key` are for mutual TLS.

    The client reads the files once, when it is made. `server_name` is the name expected in the server's certificate,
    when the target has another name.
    """

    roots: str | Path | None = None
    certificate: str | Path | None = None
    private_key: str | Path | None = None
    server_name: str = ""

    def credentials(self) -> grpc.ChannelCredentials:
        """gRPC's credentials from the files. Raises ArgumentError for a file that cannot be read."""
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.roots, "roots"),
            private_key=_read(self.private_key, "private_key"),
            certificate_chain=_read(self.certificate, "certificate"),
        )

    def options(self) -> list[tuple[str, str]]:
        """Channel options for the expected name."""
        return [("grpc.ssl_target_name_override", self.server_name)] if self.server_name else []


class Connection:
    """Target, key and TLS of a client, checked. Raises ArgumentError."""

    def __init__(self, target: object, api_key: str | None, tls: TLS | bool | None) -> None:
        self.target = check_target(target)
        self.key, self._key_source = _key_and_source(self.target, api_key)
        _doubt_variables()
        if not isinstance(tls, TLS | bool | None):
            raise arguments.refuse("tls", "True, False or a TLS with files", tls)
        self._tls = TLS() if tls is True else tls or None
        self.credentials = None if self._tls is None else self._tls.credentials()

    @property
    def options(self) -> list[tuple[str, Any]]:
        """Options of the channel."""
        return [*channel_options(self.target), *(self._tls.options() if self._tls else ())]

    def channel(self) -> grpc.Channel:
        """A new channel."""
        if self.credentials is None:
            return grpc.insecure_channel(self.target, self.options)
        return grpc.secure_channel(self.target, self.credentials, self.options)

    def aio_channel(self) -> grpc.aio.Channel:
        """A new channel of the running event loop."""
        if self.credentials is None:
            return grpc.aio.insecure_channel(self.target, self.options)
        return grpc.aio.secure_channel(self.target, self.credentials, self.options)

    def explain(self, error: MarketInferenceError) -> MarketInferenceError:
        """The same error with the cause on this side, where that is known: no key, no listener, a proxy."""
        if isinstance(error, UnauthenticatedError):
            hint = (
                f"the key is from {self._key_source}"
                if self.key
                else f"set {API_KEY_VARIABLE}, or give api_key= (--api-key-file on the command line)"
            )
            if hint not in error.message:  # the error of a lane is explained by the lane and by the call
                error.extend(hint)
        if not error.reached and isinstance(error, UnavailableError | DeadlineExceededError):
            if (proxy := proxy_of(self.target)) is not None:
                variable, address = proxy
                error.extend(
                    f"connections to {self.target} go through the proxy {address} of ${variable}: "
                    f"set no_proxy={_host(self.target)} to go around it"
                )
            elif isinstance(error, UnavailableError) and (cause := self._cause(error.message)):
                error.message = cause
                error.args = (error.message,)
        return error

    def _cause(self, said: str) -> str:
        """Cause and remedy of a connection that was not made, from gRPC's text; "" where the text shows neither."""
        if "failed to connect" not in said:
            return ""
        for sign, cause in _TLS_CAUSES.items() if self._tls else ():
            if sign in said:
                return cause.format(target=self.target, host=_host(self.target))
        for sign, cause in _CAUSES.items():
            if sign in said:
                return cause.format(target=self.target)
        return ""


def check_target(target: object) -> str:
    """The target in gRPC's form: "host:port", or with one of gRPC's schemes such as "unix:/run/x". Raises
    ArgumentError.
    """
    expected = f"host:port, such as {DEFAULT_TARGET}"
    if not isinstance(target, str) or not target.strip():
        raise arguments.refuse("target", expected, target)
    found = target.strip()
    if url := re.match(r"(https?)://([^/?#]*)", found):
        tls = ", with tls=True" if url[1] == "https" else ""
        raise ArgumentError("target", f"expected {expected}, got a URL, {target!r}: write {_with_port(url[2])!r}{tls}")
    if found.startswith(_SCHEMES):
        return found
    host, colon, port = found.rpartition(":")
    if not colon or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        raise ArgumentError(
            "target", f"expected {expected}, got {target!r} without a port: write {_with_port(found)!r}"
        )
    if not host or re.search(r"[\s/@]", host) or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise arguments.refuse("target", f"{expected}, with a port from 1 to 65535", target)
    return found


def is_loopback(target: str) -> bool:
    """Whether a target such as "127.0.0.1:8470", "localhost:1" or "unix:/run/x" stays on this machine."""
    if target.startswith("unix"):
        return True
    host = _host(target)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def find_key(target: str, given: str | None) -> str:
    """The key given, else $MARKET_INFERENCE_API_KEY, else on loopback the local gateway's own; "" for none.

    Raises ArgumentError, which does not show the key.
    """
    return _key_and_source(target, given)[0]


def _key_and_source(target: str, given: str | None) -> tuple[str, str]:
    if given is not None:
        return _clean(given, "api_key"), "api_key= (--api-key-file on the command line)"
    if key := os.environ.get(API_KEY_VARIABLE):
        return _clean(key, API_KEY_VARIABLE), f"the environment variable {API_KEY_VARIABLE}"
    if not is_loopback(target):
        return "", ""
    file = development_key_file()
    try:
        return _clean(file.read_text(encoding="utf-8"), str(file)), str(file)
    except FileNotFoundError:
        return "", ""
    except OSError as error:
        raise ArgumentError("api_key", f"the key of the local gateway cannot be read: {error}") from None


def _doubt_variables() -> None:
    """Warn of environment variables whose names are nearly those of the client.

    Settings of the services begin alike; no name of theirs is so near.
    """
    known = [name.removeprefix(_PREFIX) for name in _VARIABLES]
    for name, value in os.environ.items():
        rest = name.upper().removeprefix(_PREFIX)
        if value and name not in _VARIABLES and rest != name.upper() and (near := get_close_matches(rest, known, 1)):
            caller.warn(f"the environment variable {name} is not read: did you mean {_PREFIX}{near[0]}?", UserWarning)


def proxy_of(target: str) -> tuple[str, str] | None:
    """The variable and the address of the HTTP proxy that gRPC uses for the target; None for none.

    Source: gRPC's documentation of environment variables.
    """
    if is_loopback(target) or target.startswith(_SCHEMES[1:]):
        return None
    for variable in _PROXY_VARIABLES:
        if address := os.environ.get(variable):
            break
    else:
        return None
    excluded = next((value for name in _NO_PROXY_VARIABLES if (value := os.environ.get(name))), "")
    host = _host(target)
    if any(host.endswith(entry.strip()) for entry in excluded.split(",") if entry.strip()):
        return None
    return variable, re.sub(r"//[^@/]*@", "//", address)


def _host(target: str) -> str:
    return target.rsplit("/", 1)[-1].rsplit(":", 1)[0].strip("[]")


def _with_port(host: str) -> str:
    if host.count(":") > 1 and not host.startswith("["):
        host = f"[{host}]"
    return host if re.search(r":\d+$", host) and not host.endswith("]") else f"{host}:{DEFAULT_PORT}"


def _clean(key: object, field: str) -> str:
    """The key without the white space around it, which a shell or an editor adds."""
    if not isinstance(key, str):
        raise ArgumentError(field, f"expected text, got {type(key).__name__}")
    found = key.strip()
    if not (found.isascii() and found.isprintable()) or " " in found:
        raise ArgumentError(field, "the key holds characters that no key has (white space, control or non-ASCII)")
    return found


def _read(path: str | Path | None, field: str) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ArgumentError(f"tls.{field}", f"{error.strerror or error}: {path}") from None
