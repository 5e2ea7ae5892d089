"""The edge's configuration: read once from the environment, then frozen."""

import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field
from pydantic_settings import SettingsConfigDict

from market_inference.client.connection import check_target
from market_inference.errors import ArgumentError
from runtime.listen import Address
from runtime.settings import Settings
from runtime.tracing import Endpoint, Ratio

# As a browser sends an origin: in lower case, without a path, and without the port that the scheme implies.
_ORIGIN: Final = re.compile(r"(?!http://[^/]*:80$|https://[^/]*:443$)[a-z][a-z0-9+.-]*://[^\sA-Z/?#@*]+")


def split_origins(origins: str) -> tuple[str, ...]:
    """The origins between commas."""
    return tuple(origin.strip() for origin in origins.split(",") if origin.strip())


def _check_origins(origins: str) -> str:
    for origin in split_origins(origins):
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"{origin!r} is no origin: write scheme and host as browsers do, such as https://desk.example, in "
                "lower case, without a path, a wildcard or the scheme's own port"
            )
    return origins


def _check_gateway(target: str) -> str:
    try:
        return check_target(target)
    except ArgumentError as error:
        raise ValueError(error.violations[0][1]) from None


Origins = Annotated[str, AfterValidator(_check_origins)]
"""Origins, separated by commas."""


class Config(Settings):
    """Every setting is an environment variable `MARKET_EDGE_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="MARKET_EDGE_")

    listen: Address = Field("127.0.0.1:8472", description="where HTTP clients and browsers connect")
    metrics_listen: Address = Field("127.0.0.1:9472", description="where Prometheus scrapes /metrics")
    gateway: Annotated[str, AfterValidator(_check_gateway)] = Field(
        "127.0.0.1:8470", description="the gateway, as host:port or a gRPC name such as dns:///gateway:8470"
    )
    gateway_tls: bool = Field(False, description="connect to the gateway with TLS")
    gateway_tls_ca: Path | None = Field(None, description="CA certificates for the gateway; by default the system's")
    gateway_tls_certificate: Path | None = Field(None, description="PEM chain that the edge shows to the gateway")
    gateway_tls_key: Path | None = Field(None, description="the private key of the certificate")
    key_file: Path | None = Field(
        None,
        description="API key for requests without one, on loopback only, as `market-inference serve` uses it",
    )
    allow_plaintext: bool = Field(
        False, description="listen to other machines without TLS, which a proxy in front must provide"
    )
    tls_certificate: Path | None = Field(None, description="PEM chain for HTTP clients; read again when it changes")
    tls_key: Path | None = Field(None, description="the private key of the certificate")
    cors_origins: Origins = Field(
        "", description="origins of other sites whose pages may call, separated by commas; none by default"
    )
    max_body_bytes: int = Field(32 << 20, ge=1 << 10, description="bytes of a request's body; more are refused")
    max_bytes_in_flight: int = Field(
        128 << 20, ge=1 << 20, description="bytes of all bodies in work, half for one key; the same for answers"
    )
    max_in_flight: int = Field(512, ge=1, description="requests in work in all, half for one key")
    max_watches: int = Field(2048, ge=1, description="live sessions (/v1/watch) in all, half for one key")
    max_connections: int = Field(
        4096, ge=1, description="open connections, half of the open files at most; more are refused"
    )
    reader_seconds: float = Field(
        30.0, gt=0, description="a watch or an answer ends when its client reads nothing for this time"
    )
    body_seconds: float = Field(30.0, gt=0, description="seconds for a request's body to arrive")
    default_timeout: float = Field(30.0, gt=0, description="seconds for a request without a timeout of its own")
    max_timeout: float = Field(300.0, gt=0, description="a longer timeout is shortened to this many seconds")
    drain_seconds: float = Field(20.0, ge=0, description="time for requests in work after SIGTERM")
    page: bool = Field(True, description="serve the page at / and the reference at /docs")
    otlp_endpoint: Endpoint = ""
    trace_ratio: Ratio = 0.01
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins of `cors_origins`."""
        return split_origins(self.cors_origins)
