"""The gateway's configuration: read once from the environment, then frozen."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from runtime.listen import Address, Loopback
from runtime.tracing import Endpoint


class Config(BaseSettings):
    """Every setting is an environment variable `MARKET_GATEWAY_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="MARKET_GATEWAY_", frozen=True)

    listen: Address = Field("127.0.0.1:8470", description="where clients connect")
    metrics_listen: Address = Field("127.0.0.1:9470", description="where Prometheus scrapes /metrics")
    transport: Literal["grpcio", "native"] = Field(
        "grpcio", description="native: unary calls outside the GIL, for where TLS ends in front of the gateway"
    )
    bodies_bounded_in_front: bool = Field(
        False, description="what stands in front of the native transport refuses large messages"
    )
    workers: int = Field(1, ge=1, le=64, description="processes that share the port")
    share_port: bool = Field(False, description="set by the parent of several workers")
    replicas: str = Field(
        "127.0.0.1:8471", description="inference replicas, separated by commas: ip:port, name:port (DNS) or file:/path"
    )
    discovery_interval: float = Field(2.0, gt=0, description="seconds between two looks for replicas")
    streams_per_replica: int = Field(1, ge=1, le=16, description="Exchange streams to each replica")
    keys_file: Path | None = Field(
        None, description="hashed API keys; without it one development key, on loopback only"
    )
    jwt_key_set: str = Field("", description="JWKS of the issuer of JSON Web Tokens: a file, or an https URL")
    jwt_issuer: str = Field("", description="`iss` that tokens must carry")
    jwt_audience: str = Field("", description="`aud` that tokens must carry")
    tls_certificate: Path | None = Field(None, description="PEM chain for clients; read again when it changes")
    tls_key: Path | None = Field(None, description="its key")
    tls_client_ca: Path | None = Field(None, description="clients must present a certificate signed by these (mTLS)")
    replica_tls_ca: Path | None = Field(None, description="replicas' certificates must be signed by these")
    replica_tls_certificate: Path | None = Field(None, description="PEM chain that the gateway shows to replicas")
    replica_tls_key: Path | None = Field(None, description="its key")
    allow_plaintext: bool = Field(False, description="listen to other machines without TLS")
    allow_development_key: bool = Field(False, description="accept the development key from other machines")
    units_per_second: float = Field(0.0, ge=0, description="cost units a client may ask for; 0 without limit")
    burst_seconds: float = Field(10.0, gt=0, description="so many seconds' units may come at once")
    units_per_day: float = Field(0.0, ge=0, description="cost units of one client a day (UTC); 0 without limit")
    redis_url: str = Field("", description="redis://host:port/db: rates and quotas shared by all gateways")
    max_streams_per_client: int = Field(64, ge=1, description="Stream calls of one client")
    max_sessions: int = Field(4096, ge=1, description="live sessions (Watch calls) in all")
    max_sessions_per_client: int = Field(2048, ge=1, description="live sessions of one client")
    session_idle_seconds: float = Field(3600.0, gt=0, description="a live session without a bar for so long is ended")
    max_connection_age: float = Field(3600.0, gt=0, description="seconds until a connection is asked to be made anew")
    max_in_flight: int = Field(4096, ge=1, description="requests in flight in all; more are refused at once")
    max_in_flight_per_client: int = Field(1024, ge=1, description="requests in flight of one client")
    max_in_flight_per_replica: int = Field(4096, ge=1, description="requests in flight on one replica")
    default_timeout: float = Field(30.0, gt=0, description="seconds for a call that comes without a deadline")
    max_timeout: float = Field(300.0, gt=0, description="a longer deadline is shortened to this many seconds")
    health_interval: float = Field(1.0, gt=0, description="seconds between health checks of a replica")
    health_timeout: float = Field(2.0, gt=0, description="a replica that takes longer is left")
    drain_seconds: float = Field(20.0, ge=0, description="time for requests in flight after SIGTERM")
    reflection: bool = Field(True, description="offer gRPC server reflection")
    otlp_endpoint: Endpoint = Field(
        "", description="OpenTelemetry collector for traces (OTLP over gRPC), such as http://collector:4317"
    )
    trace_ratio: float = Field(
        0.01, ge=0, le=1, description="share of the traces begun here that is recorded; a caller's own are as it says"
    )
    profile_listen: Loopback = Field(
        "", description="where an operator may take profiles, on loopback only, such as 127.0.0.1:8480; none by default"
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
