"""The gateway's configuration: read once from the environment, then frozen."""

import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field
from pydantic_settings import SettingsConfigDict

from runtime.listen import Address, Loopback
from runtime.settings import Settings
from runtime.tracing import Endpoint, Ratio

_REDIS: Final = re.compile(r"(redis|rediss)://([^/?#]*@)?[^/?#@:]+(:\d+)?(/\d*)?(\?.*)?|unix://.+")


def _redis(url: str) -> str:
    if url and not _REDIS.fullmatch(url):
        raise ValueError("must be redis://host:port/db, rediss:// for TLS, or unix:///path")
    return url


RedisUrl = Annotated[str, AfterValidator(_redis)]
"""The URL of a Redis; empty for none."""


class Config(Settings):
    """Every setting is an environment variable `MARKET_GATEWAY_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="MARKET_GATEWAY_")

    listen: Address = Field("127.0.0.1:8470", description="where clients connect")
    metrics_listen: Address = Field("127.0.0.1:9470", description="where Prometheus scrapes /metrics")
    transport: Literal["grpcio", "native"] = Field(
        "grpcio", description="native: unary calls outside the GIL, behind a proxy that ends TLS"
    )
    bodies_bounded_in_front: bool = Field(
        False, description="a proxy in front of the native transport refuses large messages"
    )
    workers: int = Field(1, ge=1, le=64, description="processes that share the port")
    worker_seconds: float = Field(
        10.0, gt=0, description="of several workers, one that does not answer for this time is replaced"
    )
    share_port: bool = Field(False, description="set by the parent of several workers")
    replicas: str = Field(
        "127.0.0.1:8471",
        description="inference replicas, separated by commas: ip:port, name:port (DNS), unix:/path or file:/path",
    )
    discovery_interval: float = Field(2.0, gt=0, description="seconds between two look-ups of the replicas")
    streams_per_replica: int = Field(1, ge=1, le=16, description="Exchange streams to each replica")
    keys_file: Path | None = Field(
        None, description="hashed API keys; without it one development key, on loopback only"
    )
    jwt_key_set: str = Field("", description="JWKS of the issuer of JSON Web Tokens: a file, or an https URL")
    jwt_issuer: str = Field("", description="`iss` that tokens must carry")
    jwt_audience: str = Field("", description="`aud` that tokens must carry")
    jwt_copy: Path | None = Field(None, description="set by the parent of several workers: the last good key set")
    tls_certificate: Path | None = Field(None, description="PEM chain for clients; read again when it changes")
    tls_key: Path | None = Field(None, description="the private key of the certificate")
    tls_client_ca: Path | None = Field(
        None, description="CA certificates for clients, which must present a certificate (mTLS)"
    )
    replica_tls_ca: Path | None = Field(None, description="CA certificates for replicas")
    replica_tls_certificate: Path | None = Field(None, description="PEM chain that the gateway shows to replicas")
    replica_tls_key: Path | None = Field(None, description="the private key of the certificate")
    allow_plaintext: bool = Field(False, description="listen to other machines without TLS")
    allow_development_key: bool = Field(False, description="accept the development key from other machines")
    units_per_second: float = Field(0.0, ge=0, description="units per second of a client; 0 is no limit")
    burst_seconds: float = Field(10.0, gt=0, description="seconds whose units a client may use at once")
    units_per_day: float = Field(0.0, ge=0, description="units per day (UTC) of a client; 0 is no limit")
    redis_url: RedisUrl = Field("", description="redis://host:port/db: rates and quotas shared by all gateways")
    max_streams_per_client: int = Field(64, ge=1, description="Stream calls of one client")
    max_sessions: int = Field(4096, ge=1, description="live sessions (Watch calls) in all")
    max_sessions_per_client: int = Field(2048, ge=1, description="live sessions of one client")
    session_idle_seconds: float = Field(
        3600.0, gt=0, description="seconds without a bar after which a live session ends"
    )
    max_connection_age: float = Field(3600.0, gt=0, description="seconds after which a client is asked to reconnect")
    max_in_flight: int = Field(4096, ge=1, description="requests in flight in all; more are refused at once")
    max_in_flight_per_client: int = Field(1024, ge=1, description="requests in flight of one client")
    max_bytes_in_flight: int = Field(
        128 << 20, ge=1 << 20, description="bytes of requests in flight and of their answers until these have left"
    )
    max_bytes_in_flight_per_client: int = Field(64 << 20, ge=1 << 20, description="the same for one client")
    reader_seconds: float = Field(
        30.0, gt=0, description="a Stream or Watch call ends when its client reads no answer for this time"
    )
    max_in_flight_per_replica: int = Field(4096, ge=1, description="requests in flight on one replica")
    default_timeout: float = Field(30.0, gt=0, description="seconds for a call without a deadline")
    max_timeout: float = Field(300.0, gt=0, description="a longer deadline is shortened to this many seconds")
    health_interval: float = Field(1.0, gt=0, description="seconds between health checks of a replica")
    health_timeout: float = Field(
        2.0, gt=0, description="seconds for a health check; a slower replica gets no requests"
    )
    drain_seconds: float = Field(20.0, ge=0, description="time for requests in flight after SIGTERM")
    reflection: bool = Field(True, description="offer gRPC server reflection")
    otlp_endpoint: Endpoint = ""
    trace_ratio: Ratio = 0.01
    profile_listen: Loopback = Field(
        "", description="address for profiles, on loopback only, such as 127.0.0.1:8480; none by default"
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
