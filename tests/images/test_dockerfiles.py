"""The Dockerfiles pass hadolint, and agree with the code, the manifests and the build context."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from edge.config import Config as EdgeConfig
from gateway.config import Config as GatewayConfig
from inference.config import Config as InferenceConfig
from runtime.listen import split

ROOT = Path(__file__).parents[2]
CONFIGS = {"edge": EdgeConfig, "gateway": GatewayConfig, "cpu": InferenceConfig, "gpu": InferenceConfig}
PARTS = {"edge": "edge", "gateway": "gateway", "cpu": "inference", "gpu": "inference"}


@pytest.fixture(params=CONFIGS)
def image(request):
    return request.param


@pytest.fixture
def text(image):
    """The Dockerfile with joined continuation lines and without comments."""
    raw = (ROOT / f"Dockerfile.{image}").read_text(encoding="utf-8")
    return re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", raw, flags=re.MULTILINE))


@pytest.fixture
def last_stage(text):
    return text[text.rindex("\nFROM ") :]


@pytest.fixture
def config(image, last_stage, monkeypatch):
    """The configuration of a process in a container of the image."""
    for name, value in re.findall(r"\b(MARKET_\w+)=(\S+)", last_stage):
        field = name.removeprefix(CONFIGS[image].model_config["env_prefix"]).lower()
        assert field in CONFIGS[image].model_fields, f"{name} is no setting"
        monkeypatch.setenv(name, value)
    # The image does not allow plaintext; the operator sets the variable or provides certificates.
    assert "ALLOW_PLAINTEXT" not in last_stage
    monkeypatch.setenv(f"{CONFIGS[image].model_config['env_prefix']}ALLOW_PLAINTEXT", "true")
    return CONFIGS[image]()


def test_hadolint_accepts_the_dockerfile(image):
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, "--config", ROOT / ".hadolint.yaml", ROOT / f"Dockerfile.{image}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_container_serves_its_exposed_ports_on_all_interfaces(last_stage, config):
    host, port = split(config.listen)
    metrics_host, metrics_port = split(config.metrics_listen)
    assert host == metrics_host == "0.0.0.0"  # noqa: S104
    assert re.search(r"^EXPOSE (.+)$", last_stage, re.MULTILINE)[1].split() == [str(port), str(metrics_port)]


def test_the_health_check_is_python_and_calls_the_serving_port(last_stage, config):
    check = json.loads(re.search(r"^HEALTHCHECK .*? CMD (.+)$", last_stage, re.MULTILINE)[1])
    compile(check[2], "HEALTHCHECK", "exec")
    assert re.findall(r"127\.0\.0\.1:(\d+)", check[2]) == [str(split(config.listen)[1])]


def test_the_image_runs_as_the_user_of_the_manifests(image, last_stage):
    user = re.search(r"^USER (\d+):(\d+)$", last_stage, re.MULTILINE)
    [pod] = [
        found["spec"]["template"]["spec"]
        for found in yaml.safe_load_all((ROOT / f"k8s/base/{PARTS[image]}.yaml").read_text())
        if found["kind"] == "Deployment"
    ]
    context = pod["securityContext"]
    assert (int(user[1]), int(user[2])) == (context["runAsUser"], context["runAsGroup"])
    assert int(user[1]) > 0


def test_the_image_starts_the_service(image, last_stage):
    assert json.loads(re.search(r"^CMD (.+)$", last_stage, re.MULTILINE)[1]) == ["python", "-m", PARTS[image]]


def test_every_stage_is_for_amd64_and_from_one_pinned_base(text):
    stages = re.findall(r"^FROM (?:--platform=(\S+) )?(\S+)", text, re.MULTILINE)
    named = set(re.findall(r" AS (\w+)$", text, re.MULTILINE))
    assert len(stages) > 1
    for platform, base in stages:
        assert (platform == "linux/amd64" and base == "${PYTHON_IMAGE}") or base in named
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.11\.\d+-slim-\w+$", text, re.MULTILINE)


def test_all_images_stand_on_the_same_base():
    bases = {
        re.search(r"^ARG PYTHON_IMAGE=(.+)$", (ROOT / f"Dockerfile.{name}").read_text(), re.MULTILINE)[1]
        for name in CONFIGS
    }
    assert len(bases) == 1


def test_copied_files_exist_and_are_in_the_build_context(text):
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [word for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE) for word in line.split()[:-1]]
    assert copied
    for source in copied:
        assert (ROOT / source).exists()
        assert source.rstrip("/") in sent


def test_the_gateways_image_has_neither_models_nor_the_inference_service():
    text = (ROOT / "Dockerfile.gateway").read_text()
    assert not re.findall(r"^COPY .*\b(models|inference|serverless|training)/", text, re.MULTILINE)
    assert '".[gateway,native,profile,traces]"' in text


def test_the_edges_image_has_no_service_beside_the_edge():
    text = (ROOT / "Dockerfile.edge").read_text()
    assert not re.findall(r"^COPY .*\b(gateway|models|inference|serverless|training)/", text, re.MULTILINE)


def test_the_image_for_cpus_installs_no_extra_with_torch():
    text = (ROOT / "Dockerfile.cpu").read_text()
    assert not re.findall(r"^COPY .*\b(gateway|serverless|training)/", text, re.MULTILINE)
    assert '".[inference,bucket,profile,traces]"' in text


def test_nothing_is_installed_outside_the_constraints(text):
    installs = re.findall(r"pip install [^&\n]+", text)
    assert len(installs) >= 3
    for install in installs:
        assert re.search(r"pip==[\d.]+|--constraint constraints/runtime\.txt|--no-deps", install), install
