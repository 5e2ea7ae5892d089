"""Every variable with a service's prefix is a setting, and every refusal names the variable."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic_settings import SettingsConfigDict

from edge.config import Config as EdgeConfig
from gateway.config import Config as GatewayConfig
from inference.config import Config as InferenceConfig
from runtime.settings import CLIENT_VARIABLES, Settings, SettingsError, read
from serverless.config import Config as ServerlessConfig
from training.plane.config import Config as TrainingConfig

SERVICES = [GatewayConfig, EdgeConfig, InferenceConfig, ServerlessConfig, TrainingConfig]
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    for name in [name for name in os.environ if name.startswith("MARKET_")]:
        monkeypatch.delenv(name)


def problems(kind: type[Settings], monkeypatch: pytest.MonkeyPatch, **variables: str) -> tuple[str, ...]:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        read(kind)
    return refused.value.problems


@pytest.mark.parametrize("kind", SERVICES)
def test_an_unknown_variable_is_refused_with_the_nearest_known_one(kind, monkeypatch):
    prefix = kind.model_config["env_prefix"]
    found = problems(kind, monkeypatch, **{f"{prefix}LOG_LEVL": "debug", f"{prefix}QQQQQ": "1"})
    assert found == (
        f"{prefix}LOG_LEVL is no setting: {prefix}LOG_LEVEL is the nearest one",
        f"{prefix}QQQQQ is no setting: docs/operations.md lists the settings",
    )


@pytest.mark.parametrize("kind", SERVICES)
def test_each_prefix_belongs_to_one_service(kind, monkeypatch):
    for other in SERVICES:
        if other is not kind:
            monkeypatch.setenv(f"{other.model_config['env_prefix']}NONE_OF_MINE", "1")
    read(kind)


@pytest.mark.parametrize("kind", SERVICES)
def test_variables_that_kubernetes_sets_for_a_service_of_the_same_name_pass(kind, monkeypatch):
    prefix = kind.model_config["env_prefix"]
    for service in ("", "HEADLESS_"):
        variables = {
            "SERVICE_HOST": "10.0.0.1",
            "SERVICE_PORT": "8470",
            "SERVICE_PORT_GRPC": "8470",
            "PORT": "tcp://10.0.0.1:8470",
            "PORT_8470_TCP": "tcp://10.0.0.1:8470",
            "PORT_8470_TCP_PROTO": "tcp",
            "PORT_8470_TCP_PORT": "8470",
            "PORT_8470_TCP_ADDR": "10.0.0.1",
        }
        for name, value in variables.items():
            monkeypatch.setenv(f"{prefix}{service}{name}", value)
    read(kind)


def test_a_port_of_ones_own_is_no_variable_of_kubernetes(monkeypatch):
    assert problems(GatewayConfig, monkeypatch, MARKET_GATEWAY_LISTEN_PORT="8470") == (
        "MARKET_GATEWAY_LISTEN_PORT is no setting: MARKET_GATEWAY_LISTEN is the nearest one",
    )


@pytest.mark.parametrize("kind", SERVICES)
def test_an_empty_variable_is_unset(monkeypatch, kind):
    """As Helm and Compose write a variable without a value."""
    expected = read(kind)
    for field in kind.model_fields:
        monkeypatch.setenv(kind.variable(field), "")
    monkeypatch.setenv(f"{kind.model_config['env_prefix']}NONE_OF_MINE", "")
    assert read(kind) == expected


def test_the_variables_of_the_client_pass(monkeypatch):
    for name in CLIENT_VARIABLES:
        monkeypatch.setenv(name, "x")
    for kind in SERVICES:
        read(kind)


def test_the_variables_of_the_client_are_complete():
    """As the sources of client and command line name variables with the prefix of a service."""
    prefixes = tuple(kind.model_config["env_prefix"] for kind in SERVICES)
    named: set[str] = set()
    for source in (ROOT / "market_inference").rglob("*.py"):
        if source.name != "pair.py":  # the settings of the services that it starts
            text = source.read_text(encoding="utf-8")
            named |= {name for name in re.findall(r'"(MARKET_\w+)"', text) if name.startswith(prefixes)}
    settings = {kind.variable(field) for kind in SERVICES for field in kind.model_fields}
    assert named - settings == CLIENT_VARIABLES


@pytest.mark.parametrize(
    ("kind", "name", "value", "text"),
    [
        (GatewayConfig, "MAX_IN_FLIGHT", "abc", "=abc: input should be a valid integer"),
        (GatewayConfig, "WORKERS", "0", "=0: input should be greater than or equal to 1"),
        (GatewayConfig, "LISTEN", "nowhere", "=nowhere: must be host:port"),
        (GatewayConfig, "LOG_LEVEL", "info\r", r"='info\r': input should be 'debug'"),
        (GatewayConfig, "WORKERS", "2\x1b[2J\n3", r"='2\x1b[2J\n3': input should be a valid integer"),
        (GatewayConfig, "REDIS_URL", "localhost", "=localhost: must be redis://host:port/db"),
        (GatewayConfig, "REDIS_URL", "redis://me:secret@localhost:x", ": must be redis://host:port/db"),
        (GatewayConfig, "TLS_CERTIFICATE", "c.pem", "=c.pem needs MARKET_GATEWAY_TLS_KEY"),
        (GatewayConfig, "TLS_CLIENT_CA", "c.pem", "=c.pem needs MARKET_GATEWAY_TLS_CERTIFICATE"),
        (GatewayConfig, "REPLICA_TLS_KEY", "k.pem", "=k.pem needs MARKET_GATEWAY_REPLICA_TLS_CERTIFICATE"),
        (EdgeConfig, "GATEWAY_TLS_KEY", "k.pem", "=k.pem needs MARKET_EDGE_GATEWAY_TLS_CERTIFICATE"),
        (
            EdgeConfig,
            "GATEWAY",
            "nohost",
            "=nohost: expected host:port, such as 127.0.0.1:8470, got 'nohost' without a",
        ),
        (EdgeConfig, "CORS_ORIGINS", "desk.example", "=desk.example: 'desk.example' is no origin"),
        (EdgeConfig, "CORS_ORIGINS", "https://a.example,*", "=https://a.example,*: '*' is no origin"),
        (EdgeConfig, "CORS_ORIGINS", "https://desk.example/", "is no origin"),
        (EdgeConfig, "CORS_ORIGINS", "https://Desk.example", "is no origin"),
        (EdgeConfig, "CORS_ORIGINS", "https://desk.example:443", "is no origin"),
        (InferenceConfig, "DEVICE", "gpu", "=gpu: must be auto, cpu, cuda or cuda:N"),
        (InferenceConfig, "REGISTRY", "/no/such/folder", "=/no/such/folder: no such folder"),
        (InferenceConfig, "REGISTRY", "ftp://x", "=ftp://x: must be s3://bucket/prefix"),
        (InferenceConfig, "TLS_CLIENT_CA", "c.pem", "=c.pem needs MARKET_INFERENCE_TLS_CERTIFICATE"),
        (TrainingConfig, "NAME", "Bad Name", "=Bad Name: string should match"),
    ],
)
def test_a_refused_value_is_one_line_with_the_name_of_the_variable(kind, name, value, text, monkeypatch):
    variable = f"{kind.model_config['env_prefix']}{name}"
    (problem,) = problems(kind, monkeypatch, **{variable: value})
    assert problem.startswith(f"{variable}{text[: text.index(' ')]}") or text == "is no origin"
    assert text in problem
    assert problem.isprintable()
    assert "pydantic" not in problem
    assert "secret" not in problem


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_URL", "redis://localhost"),
        ("REDIS_URL", "rediss://me:secret@cache.example:6380/2?health_check_interval=5"),
        ("REDIS_URL", "unix:///run/redis.sock?db=1"),
        ("REDIS_URL", ""),
    ],
)
def test_urls_of_redis_pass(name, value, monkeypatch):
    monkeypatch.setenv(f"MARKET_GATEWAY_{name}", value)
    assert read(GatewayConfig).redis_url == value


def test_origins_as_browsers_send_them_pass(monkeypatch):
    monkeypatch.setenv("MARKET_EDGE_CORS_ORIGINS", "https://desk.example, http://localhost:3000,chrome-extension://ab")
    assert len(read(EdgeConfig).origins) == 3


def test_a_secret_is_not_printed(monkeypatch):
    class Config(Settings):
        model_config = SettingsConfigDict(env_prefix="MARKET_X_")
        url: int = 0

    (problem,) = problems(Config, monkeypatch, MARKET_X_URL="postgres://me:secret@host")
    assert problem == "MARKET_X_URL: input should be a valid integer, unable to parse string as an integer"


@pytest.mark.parametrize("service", ["gateway", "edge", "inference", "serverless", "training.plane"])
def test_a_service_with_an_unknown_variable_ends_with_one_line(service, tmp_path):
    prefix = f"MARKET_{service.partition('.')[0].upper()}_"
    done = subprocess.run(
        [sys.executable, "-m", service],
        env={**os.environ, "MARKET_INFERENCE_STATE_DIR": str(tmp_path), f"{prefix}LOG_LEVL": "debug"},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == f"{service}: {prefix}LOG_LEVL is no setting: {prefix}LOG_LEVEL is the nearest one\n"
