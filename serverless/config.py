"""The worker's configuration: read once from the environment, then frozen.

The inference service in the same process has a separate configuration, `MARKET_INFERENCE_<NAME>` (inference/config.py).
"""

from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from runtime.listen import Address
from runtime.settings import Settings


class Config(Settings):
    """Every setting is an environment variable `MARKET_SERVERLESS_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="MARKET_SERVERLESS_")

    streaming: Literal["off", "aggregated", "only"] = Field(
        "off", description="how results are posted: whole; as they are ready and whole at the end; as they are ready"
    )
    warm_up: bool = Field(True, description="load the models when the worker starts, not at the first job")
    min_concurrency: int = Field(64, ge=1, description="jobs that the worker takes at once, at least")
    max_concurrency: int = Field(512, ge=1, description="and at most")
    default_timeout: float = Field(300.0, gt=0, description="seconds for a job that names none, cold start included")
    max_timeout: float = Field(600.0, gt=0, description="seconds that a job may ask for")
    memory_policy: Literal["on_pressure", "each_job"] = Field(
        "on_pressure", description="when cached memory goes back to the device and the system"
    )
    memory_pressure: float = Field(0.85, gt=0, le=1, description="share of the memory in use that counts as pressure")
    training_url: str = Field("", description="the training plane behind the training actions; none by default")
    training_key: SecretStr | None = Field(None, description="API key for the plane, with the scope training:run")
    metrics_listen: Address | None = Field(None, description="where to serve Prometheus' /metrics; none by default")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
