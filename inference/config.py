"""The inference service's configuration: read once from the environment, then frozen."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from runtime.listen import Address, Loopback, is_loopback
from runtime.tracing import Endpoint


class Config(BaseSettings):
    """Every setting is an environment variable `MARKET_INFERENCE_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="MARKET_INFERENCE_", frozen=True)

    listen: Address = Field("127.0.0.1:8471", description="where gateways connect")
    metrics_listen: Address = Field("127.0.0.1:9471", description="where Prometheus scrapes /metrics")
    tls_certificate: Path | None = Field(None, description="PEM chain for gateways; read again when it changes")
    tls_key: Path | None = Field(None, description="its key")
    tls_client_ca: Path | None = Field(None, description="gateways must present a certificate signed by these (mTLS)")
    allow_plaintext: bool = Field(False, description="listen to other machines without mTLS")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    device_memory_fraction: float = Field(
        0.9, gt=0, le=1, description="part of a CUDA device's memory that this process may use"
    )
    name: str = Field("", description="this replica's name in status and logs; the host's by default")
    forecast_models: str = Field(
        "auto,vol_rw,ridge_ar,fracast,auto_fracast", description="NAME or NAME=SOURCE, the default first"
    )
    sentiment_models: str = Field("minilm", description="NAME, or NAME=folder or hub id, the default first")
    registry: Path | None = Field(None, description="a watched folder of models, each with a manifest.json")
    registry_interval: float = Field(5.0, gt=0, description="seconds between looks into the registry")
    idle_unload_seconds: float = Field(
        0.0, ge=0, description="unload models other than defaults after so long; 0 never"
    )
    engine_threads: int = Field(1, ge=1, description="CPU threads inside one engine's batch")
    max_queued_seconds: float = Field(5.0, gt=0, description="work one engine's queue accepts, in expected seconds")
    max_sessions: int = Field(8192, ge=1, description="live sessions in all; more are refused at once")
    max_session_bytes: int = Field(512 << 20, ge=1, description="bytes of bars that all live sessions hold together")
    drain_seconds: float = Field(20.0, ge=0, description="time for requests in flight after SIGTERM")
    otlp_endpoint: Endpoint = Field(
        "", description="OpenTelemetry collector for traces (OTLP over gRPC), such as http://collector:4317"
    )
    trace_ratio: float = Field(
        0.01, ge=0, le=1, description="share of the traces begun here that is recorded; a caller's own are as it says"
    )
    profile_listen: Loopback = Field(
        "", description="where an operator may take profiles, on loopback only, such as 127.0.0.1:8481; none by default"
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _refuse_an_open_door(self) -> Self:
        closed = self.tls_certificate is not None and self.tls_client_ca is not None
        if not (is_loopback(self.listen) or closed or self.allow_plaintext):
            raise ValueError(
                f"MARKET_INFERENCE_LISTEN={self.listen} is open to other machines: set "
                "MARKET_INFERENCE_TLS_CERTIFICATE, _TLS_KEY and _TLS_CLIENT_CA, since whoever reaches this port is "
                "trusted, or MARKET_INFERENCE_ALLOW_PLAINTEXT=true where the network keeps others out"
            )
        return self


def model_list(setting: str) -> list[tuple[str, str | None]]:
    """`"a,b=source"` as [("a", None), ("b", "source")]."""
    entries = [entry.strip().partition("=") for entry in setting.split(",") if entry.strip()]
    return [(name, source or None) for name, _, source in entries]
