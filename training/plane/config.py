"""The plane's configuration: read once from the environment, then frozen."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from market_inference.contract.state import state_dir
from runtime.listen import Address
from runtime.remote import runpod
from runtime.settings import Settings


class Config(Settings):
    """Every setting is an environment variable `MARKET_TRAINING_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="MARKET_TRAINING_")

    listen: Address = Field("127.0.0.1:8475", description="where clients and pods connect")
    public_url: str = Field("", description="the address that pods call; by default http://LISTEN")
    folder: Path | None = Field(
        None, description="for SQLite, objects and machines; by default `training` in the state folder"
    )
    database_url: str = Field("", description="postgresql+psycopg://...; by default SQLite in the folder")
    objects: str = Field("", description="s3://bucket?endpoint=URL&region=NAME; by default files in the folder")
    name: str = Field("mi", pattern="^[a-z][a-z0-9]{0,19}$", description="prefix of the names of this plane's machines")
    workers: int = Field(1, ge=1, le=64, description="processes that share the port")
    socket: int = Field(-1, description="set by the parent of several workers: the listening socket's descriptor")
    keys_file: Path | None = Field(
        None, description="the gateway's hashed API keys; without it one development key, on loopback only"
    )
    jwt_key_set: str = Field("", description="JWKS of the issuer of JSON Web Tokens: a file, or an https URL")
    jwt_issuer: str = Field("", description="`iss` that tokens must carry")
    jwt_audience: str = Field("", description="`aud` that tokens must carry")
    jwt_copy: Path | None = Field(None, description="set by the parent of several workers: the last good key set")
    allow_plaintext: bool = Field(False, description="listen to other machines; TLS must end in front of the plane")
    max_dataset_bytes: int = Field(20_000_000_000, ge=1, description="a larger dataset is refused")
    max_artifact_bytes: int = Field(5_000_000_000, ge=1, description="a larger artifact is refused")
    max_attempt_bytes: int = Field(
        50_000_000_000, ge=1, description="a machine keeps no more: its artifacts and the newest checkpoints"
    )
    multipart_bytes: int = Field(5_000_000_000, ge=1, description="a larger dataset is uploaded in parts")
    part_bytes: int = Field(500_000_000, ge=1, description="bytes of a part")
    max_jobs_per_owner: int = Field(100, ge=1, description="jobs of one owner that are not final")
    max_kept_jobs_per_owner: int = Field(10_000, ge=1, description="jobs of one owner, with final ones that are kept")
    max_datasets_per_owner: int = Field(1000, ge=1, description="datasets of one owner that are not deleted")
    max_dataset_bytes_per_owner: int = Field(
        100_000_000_000, ge=1, description="bytes of one owner's datasets that are not deleted, as declared"
    )
    min_free_bytes: int = Field(
        1_000_000_000, ge=0, description="uploads to the folder, and datasets of machines beside it, leave so much disk"
    )
    max_watchers: int = Field(256, ge=1, description="open event streams of one worker, a quarter for one owner")
    max_machines: int = Field(4, ge=1, description="machines at once; further jobs are queued")
    machine_memory_bytes: int = Field(
        0,
        ge=0,
        description="memory of a machine that is a process of this computer; 0 for three quarters of all, divided by "
        "`max_machines`",
    )
    keep_days: float = Field(30.0, gt=0, description="days until final jobs and their artifacts are deleted")
    budget_usd: float = Field(50.0, ge=0, description="what an owner may spend in a calendar month, by default")
    launchers: str = Field(
        "process", description="comma-separated: process, runpod, kubernetes, dstack; the first one runs the jobs"
    )
    bases: str = Field("", description="comma-separated folders of this computer with base models for recipes")
    image: str = Field("", max_length=300, description="what remote machines run, by digest: registry/name@sha256:...")
    disk_gb: int = Field(40, ge=10, le=10_000, description="disk of a remote machine")
    runpod_key: SecretStr | None = Field(None, description="API key of RunPod")
    runpod_api: str = Field(runpod.API, description="where RunPod's REST API is")
    runpod_registry: str = Field("", description="id of the credentials for a private image, saved on RunPod")
    runpod_data_centers: str = Field("", description="comma-separated; by default any")
    kubernetes_api: str = Field("https://kubernetes.default.svc", description="the API server")
    kubernetes_namespace: str = Field("default", description="where Jobs are made")
    kubernetes_token_file: Path | None = Field(
        Path("/var/run/secrets/kubernetes.io/serviceaccount/token"), description="the service account's token"
    )
    kubernetes_ca_file: str = Field(
        "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt", description="whom to trust; `system` for the system's"
    )
    kubernetes_gpus: str = Field("", description="comma-separated values of nvidia.com/gpu.product; none for CPUs")
    kubernetes_usd_per_hour: float = Field(0.0, ge=0, description="what a GPU of the cluster is charged with")
    dstack_url: str = Field("", description="the dstack server")
    dstack_token: SecretStr | None = Field(None, description="a user's token of the dstack server")
    dstack_project: str = Field("main", description="the project of dstack")
    registry: str = Field(
        "", description="where promoted models go: the replicas' registry, a folder or s3://bucket/prefix?endpoint=URL"
    )
    gateway: str = Field("", description="host:port of the gateway that answers for the champion; none: no verdicts")
    gateway_key: SecretStr | None = Field(
        None, description="API key for the gateway; by default this machine's own on loopback"
    )
    gateway_tls: bool = Field(False, description="speak TLS to the gateway, by the system's roots")
    max_looks: int = Field(20, ge=1, description="versions that the gate judges on the same rows")
    replicas: str = Field("", description="addresses of the replicas' metrics, http://host:port/metrics, by commas")
    watch_seconds: float = Field(86400.0, gt=0, description="how long a promoted model is watched")
    watch_every: float = Field(15.0, gt=0, description="seconds between two looks at watched models")
    script: Path | None = Field(None, description="what a machine of this computer runs; by default pod/run.sh")
    max_connections: int = Field(
        1000,
        ge=10,
        description="open connections of one worker, half of its open files at most; more are refused at once",
    )
    poll_seconds: float = Field(0.5, gt=0, description="seconds between two looks for work")
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def root(self) -> Path:
        return (self.folder or state_dir() / "training").absolute()

    @property
    def store_url(self) -> str:
        return self.database_url or f"sqlite:///{self.root}/store.db"

    @property
    def url(self) -> str:
        return (self.public_url or f"http://{self.listen}").rstrip("/")
