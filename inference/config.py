"""The inference service's configuration: read once from the environment, then frozen."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_settings import SettingsConfigDict

from runtime.listen import Address, AnyAddress, Loopback, is_loopback, is_unix
from runtime.remote.location import Location
from runtime.settings import Settings
from runtime.tracing import Endpoint, Ratio


def _check_device(device: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ValueError("must be auto, cpu, cuda or cuda:N")
    return device


def _check_registry(registry: str) -> str:
    if "://" in registry:
        Location.of(registry)
    elif registry and not Path(registry).is_dir():
        raise ValueError("no such folder: make the folder first, or name a bucket as s3://bucket/prefix")
    return registry


Device = Annotated[str, AfterValidator(_check_device)]
"""A device, or `auto`."""
Source = Annotated[str, AfterValidator(_check_registry)]
"""A folder that exists or the address of a bucket; empty for none."""


class Config(Settings):
    """Every setting is an environment variable `MARKET_INFERENCE_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="MARKET_INFERENCE_")

    listen: AnyAddress = Field(
        "127.0.0.1:8471", description="where gateways connect: host:port, or unix:/path for gateways of this machine"
    )
    metrics_listen: Address = Field("127.0.0.1:9471", description="where Prometheus scrapes /metrics")
    tls_certificate: Path | None = Field(None, description="PEM chain presented to gateways; read again after a change")
    tls_key: Path | None = Field(None, description="PEM key of the certificate")
    tls_client_ca: Path | None = Field(
        None, description="PEM authorities that must have signed a gateway's certificate (mTLS)"
    )
    allow_plaintext: bool = Field(False, description="accept connections from other machines without mTLS")
    device: Device = Field("auto", description="auto, cpu, cuda or cuda:N")
    device_memory_fraction: float = Field(
        0.9, gt=0, le=1, description="share of a CUDA device's memory that this process may use"
    )
    name: str = Field("", description="the replica's name in status and logs; the host name by default")
    forecast_models: str = Field(
        "auto,vol_rw,ridge_ar,fracast,auto_fracast", description="NAME or NAME=SOURCE, the default first"
    )
    sentiment_models: str = Field("minilm", description="NAME, or NAME=folder or hub id, the default first")
    registry: Source = Field(
        "",
        description="model registry, watched: a folder of model folders, or s3://bucket/prefix?endpoint=URL&region=NAME",
    )
    registry_cache: Path | None = Field(
        None, description="local copies of a bucket's models; by default `registry` in the state folder"
    )
    registry_interval: float = Field(5.0, gt=0, description="seconds between scans of the registry")
    idle_unload_seconds: float = Field(
        0.0,
        ge=0,
        description="seconds without a request after which a model other than a default is unloaded; 0 for never",
    )
    engine_threads: int = Field(1, ge=1, description="CPU threads of one engine's batch")
    text_threads: int = Field(
        0,
        ge=0,
        description="CPU threads that share a batch of texts of the embedded model; 0: as many as cores, at most 4",
    )
    max_queued_seconds: float = Field(5.0, gt=0, description="bound of one engine's queue, in expected seconds of work")
    max_answer_bytes: int = Field(
        256 << 20, ge=1, description="bound of the bytes of answers in memory, computed or not yet sent"
    )
    max_sessions: int = Field(8192, ge=1, description="bound of live sessions")
    max_session_bytes: int = Field(
        512 << 20,
        ge=1,
        description="bound of the bytes of bars of all live sessions, and of the inputs of their forecasts",
    )
    session_memory_share: float = Field(
        0.25, gt=0, le=1, description="share of the bytes of all live sessions that one client's sessions may hold"
    )
    stuck_seconds: float = Field(
        60.0, gt=0, description="run time of a batch after which its engine is declared stuck and not ready"
    )
    load_seconds: float = Field(
        600.0, gt=0, description="seconds after which a model that is still loading, or being checked, has failed"
    )
    drain_seconds: float = Field(20.0, ge=0, description="seconds for requests in flight after SIGTERM")
    otlp_endpoint: Endpoint = ""
    trace_ratio: Ratio = 0.01
    profile_listen: Loopback = Field(
        "", description="address of the profile service, on loopback only, such as 127.0.0.1:8481; none by default"
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _refuse_open_plaintext(self) -> Self:
        if is_unix(self.listen) and self.tls_certificate is not None:
            raise ValueError(f"MARKET_INFERENCE_LISTEN={self.listen} is a Unix socket, which has no TLS")
        mutual_tls = self.tls_certificate is not None and self.tls_client_ca is not None
        if not (is_loopback(self.listen) or mutual_tls or self.allow_plaintext):
            raise ValueError(
                f"MARKET_INFERENCE_LISTEN={self.listen} is open to other machines, and the service trusts every "
                "connection: set MARKET_INFERENCE_TLS_CERTIFICATE, _TLS_KEY and _TLS_CLIENT_CA, or "
                "MARKET_INFERENCE_ALLOW_PLAINTEXT=true on a network that admits gateways only"
            )
        return self


def model_list(setting: str) -> list[tuple[str, str | None]]:
    """`"a,b=source"` as [("a", None), ("b", "source")]."""
    entries = [entry.strip().partition("=") for entry in setting.split(",") if entry.strip()]
    return [(name, source or None) for name, _, source in entries]
