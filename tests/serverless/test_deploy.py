"""The deploy command against RunPod on loopback, with a check of every request, and a registry of images."""

import json
import re
import time

import pytest
from click.testing import CliRunner

from serverless.deploy.command import deploy
from serverless.deploy.image import parse
from tests.runpod.platform import KEY, RefusalError, platform

HEALTHY = {
    "status": "success",
    "output": {"status": "healthy", "gpu": {"device_name": "NVIDIA L4"}, "models": {"forecast": {}, "sentiment": {}}},
}
REFUSED = "POST /v2/serverless"


class Cloud:
    """Queues of endpoints and a registry of images, beside the platform's REST API on one port."""

    def __init__(self):
        self.job = {"status": "COMPLETED", "output": HEALTHY}
        self.pending_polls = 1
        self.measured = 0
        self.labels = {"io.market-inference.models": "minilm fracast"}
        self.private = False

    def answer(self, method, path, body, authorization):
        if path.startswith(("/v2/you/", "/token")):
            return self.registry(path, authorization)
        if authorization != f"Bearer {KEY}":
            return 401
        if method == "POST" and path.endswith("/run"):
            assert body == {"input": {"action": "health"}}
            return {"id": "job-1", "status": "IN_QUEUE"}
        if path.endswith("/runsync"):
            assert len(body["input"]["time_series"]) == 250
            self.measured += 1
            return {"id": f"sync-{self.measured}", "status": "COMPLETED"}
        if path.endswith("/status/job-1"):
            self.pending_polls -= 1
            return {"id": "job-1", "status": "IN_PROGRESS"} if self.pending_polls >= 0 else {"id": "job-1", **self.job}
        return 404

    def registry(self, path, authorization):
        """Require an anonymous token first, as public registries do."""
        if path.startswith("/token"):
            assert "scope=repository:you/market-inference:pull" in path
            return 401 if self.private else {"token": "anonymous"}
        if authorization != "Bearer anonymous":
            return 401
        if path.endswith("manifests/1.0"):
            manifests = [
                {"digest": "sha256:arm", "platform": {"os": "linux", "architecture": "arm64"}},
                {"digest": "sha256:amd", "platform": {"os": "linux", "architecture": "amd64"}},
            ]
            return {"manifests": manifests}
        if path.endswith("manifests/sha256:amd"):
            return {"config": {"digest": "sha256:config"}, "layers": [{"size": 4 * 10**9}, {"size": 5 * 10**8}]}
        if path.endswith("blobs/sha256:config"):
            return {"os": "linux", "architecture": "amd64", "config": {"Labels": self.labels}}
        return 404


@pytest.fixture
def cloud():
    return Cloud()


@pytest.fixture
def runpod(cloud, monkeypatch):
    with platform() as made:
        made.beside = cloud.answer
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        yield made


@pytest.fixture
def command(runpod):
    """`command(*options)` runs the command, checks that the output does not hold the key, and returns the result."""

    def run(*options, key=KEY, image="market-inference:1.0"):
        arguments = ["runpod", "--registry", "ghcr.io/you", "--image", image, "--gpu", "AMPERE_24", *options]
        environment = {"RUNPOD_API_KEY": key, "RUNPOD_API_BASE_URL": runpod.url, "RUNPOD_ENDPOINT_BASE_URL": runpod.url}
        result = CliRunner().invoke(deploy, [*arguments, "--registry-url", runpod.url], env=environment)
        assert KEY not in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


def test_a_deployment_creates_template_and_endpoint_and_checks_health(command, runpod):
    result = command("--max-workers", "5", "--env", 'MARKET_SERVERLESS_STREAMING=on"ly\\')
    assert result.exit_code == 0, result.output
    (template,), (endpoint,) = runpod.templates.values(), runpod.endpoints.values()
    for record in (template, endpoint):
        assert record["image"] == "ghcr.io/you/market-inference:1.0"
        assert record["args"] == "python -m serverless"
        assert record["env"] == {"MARKET_SERVERLESS_STREAMING": 'on"ly\\'}
    assert template["serverless"] is True
    assert endpoint["gpu"]["pools"] == ["AMPERE_24"]
    assert endpoint["workers"] == {"min": 0, "max": 5, "idleTimeout": 5}
    assert "healthy, on NVIDIA L4: forecast, sentiment" in result.output
    assert f"ready: {runpod.url}/endpoint-1/runsync" in result.output


def test_the_same_plan_twice_changes_nothing(command, runpod):
    assert command().exit_code == 0
    made = list(runpod.changes)
    again = command()
    assert again.exit_code == 0
    assert runpod.changes == made
    assert again.output.count("is as it should be") == 2


def test_a_changed_plan_updates_template_and_endpoint(command, runpod):
    command()
    assert command("--max-workers", "7").exit_code == 0
    ((endpoint),) = runpod.endpoints.values()
    assert endpoint["workers"]["max"] == 7
    assert len(runpod.templates) == 1


def test_a_new_image_and_settings_reach_the_endpoint_too(command, runpod):
    command("--env", "OLD=1")
    assert command("--env", "NEW=2", "--disk-gb", "40").exit_code == 0
    for (record,) in (runpod.templates.values(), runpod.endpoints.values()):
        assert (record["env"], record["disk"]) == ({"NEW": "2"}, 40)


def test_a_dry_run_checks_and_prices_but_creates_nothing(command, runpod):
    result = command("--dry-run", "--min-workers", "1", "--max-workers", "4", "--calls-per-second", "100")
    assert result.exit_code == 0, result.output
    assert runpod.changes == []
    assert "ok      size: 4.5 GB compressed" in result.output
    assert "ok      models: in the image: minilm fracast" in result.output
    assert "ok      GPU: AMPERE_24: NVIDIA L4, NVIDIA RTX A5000" in result.output
    assert "one worker: $0.30 to $0.40 an hour" in result.output
    assert "at most (4 workers): $1.20 to $1.60 an hour" in result.output
    # 10,000 seconds of one worker.
    assert "a million calls at 100 calls/s a worker: $0.83 to $1.11" in result.output
    assert "would make template 'market-inference-template'" in result.output


def test_a_measurement_after_the_deployment_prices_a_million_calls(command, cloud):
    result = command("--measure", "40")
    assert result.exit_code == 0, result.output
    assert cloud.measured == 40
    found = re.search(r"million calls at ([\d.e+]+) calls/s a worker: \$([\d.]+) to \$([\d.]+)", result.output)
    rate, low, high = found.groups()
    hours = 1_000_000 / float(rate) / 3600
    assert (float(low), float(high)) == pytest.approx((0.3 * hours, 0.4 * hours), rel=0.01, abs=0.006)


def test_a_given_price_replaces_the_apis_price(command):
    assert "one worker: $0.69 an hour" in command("--dry-run", "--price-per-hour", "0.69").output


@pytest.mark.parametrize(
    ("options", "settings", "said"),
    [
        ({"key": ""}, {}, "key: set RUNPOD_API_KEY"),
        ({"key": "rpa_other"}, {}, "key: RunPod does not accept the API key"),
        ({"image": "Market Inference"}, {}, "no image name"),
        ({"image": "market-inference:2.0"}, {}, "registry: the registry has no such image"),
        ({}, {"gpus": {}}, "GPU: RunPod lists no GPU in the pool AMPERE_24"),
    ],
)
def test_a_failed_check_creates_nothing(command, runpod, options, settings, said):
    vars(runpod).update(settings)
    result = command(**options)
    assert result.exit_code == 1
    assert said in result.output
    assert "nothing was made" in result.output
    assert runpod.changes == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--min-workers", "3", "--max-workers", "2"], "0 <= min <= max"),
        (["--name", "-"], "name '-'"),
        (["--env", "A-B=1"], "'A-B': not a name"),
        (["--env", "HF_TOKEN=hf_abc"], "looks like a secret"),
    ],
)
def test_an_invalid_plan_creates_nothing(command, runpod, arguments, said):
    result = command(*arguments)
    assert result.exit_code == 1
    assert said in result.output
    assert "hf_abc" not in result.output
    assert runpod.changes == []


def test_a_pool_without_a_free_gpu_is_a_warning(command, runpod):
    for gpu in runpod.gpus.values():
        gpu["availability"] = "NONE"
    result = command("--dry-run")
    assert result.exit_code == 0
    assert "warning GPU: AMPERE_24: NVIDIA L4, NVIDIA RTX A5000; none is free at present" in result.output


def test_unpinned_large_and_unlabelled_images_are_warnings(command, cloud):
    cloud.labels = {}
    assert "warning models: no label" in command("--dry-run").output
    cloud.private = True
    assert "RunPod needs --registry-auth" in command("--dry-run").output
    assert "warning image: names no version" in command("--dry-run", image="market-inference").output


@pytest.mark.parametrize(
    "job",
    [
        {"status": "FAILED", "error": "exit code 1"},
        {"status": "COMPLETED", "output": {"status": "success", "output": {"status": "degraded"}}},
        {"status": "COMPLETED", "output": "something else"},
    ],
)
def test_a_failed_test_rolls_a_new_deployment_back(command, runpod, cloud, job):
    cloud.job = job
    result = command()
    assert result.exit_code == 1
    assert "everything is as before" in result.output
    assert (runpod.templates, runpod.endpoints) == ({}, {})


def test_a_failed_test_restores_an_updated_deployment(command, runpod, cloud):
    command()
    before = json.loads(json.dumps([runpod.templates, runpod.endpoints]))
    cloud.job = {"status": "FAILED"}
    result = command("--max-workers", "9", "--disk-gb", "40")
    assert result.exit_code == 1
    assert [runpod.templates, runpod.endpoints] == before


def test_a_template_that_went_with_its_endpoint_is_made_again(command, runpod, cloud):
    command("--disk-gb", "30")
    runpod.endpoints.clear()
    cloud.job = {"status": "FAILED"}
    result = command()
    assert "everything is as before" in result.output
    (template,) = runpod.templates.values()
    assert (template["disk"], runpod.endpoints) == (30, {})


def test_a_failed_rollback_is_reported(command, runpod, cloud):
    cloud.job = {"status": "FAILED"}
    runpod.refuse["DELETE /v2/serverless/{id}"] = [RefusalError(403, "not today")]
    said = "could not be undone, see the console: endpoint 'market-inference' (RunPod refused (403): not today)"
    assert said in command().output


def test_a_template_in_use_is_deleted_once_it_is_free(command, runpod, cloud):
    runpod.refuse[REFUSED] = [RefusalError(422, "no")]
    runpod.refuse["DELETE /v2/templates/{id}"] = [RefusalError(400, "the template is in use")] * 3
    result = command()
    assert "RunPod refused (422): no; everything is as before" in result.output
    assert runpod.templates == {}


def test_a_test_that_never_ends_is_rolled_back(command, runpod, cloud):
    cloud.pending_polls = 10**9
    result = command("--test-timeout", "0.05")
    assert "the test job is still IN_PROGRESS" in result.output
    assert runpod.endpoints == {}


def test_transient_failures_are_retried(command, runpod):
    runpod.refuse_next = [RefusalError(429, headers={"Retry-After": "7"}), RefusalError(503), RefusalError(500)]
    assert command().exit_code == 0
    assert len(runpod.endpoints) == 1


def test_a_lost_answer_creates_nothing_twice(command, runpod):
    runpod.lose_answers_to = {"POST /v2/templates", REFUSED}
    result = command()
    assert result.exit_code == 0, result.output
    assert (len(runpod.templates), len(runpod.endpoints)) == (1, 1)
    assert runpod.changes == ["POST /v2/templates", REFUSED]


@pytest.mark.parametrize(
    ("name", "registry", "path", "pinned"),
    [
        ("ghcr.io/you/market-inference:1.0", "ghcr.io", "you/market-inference", True),
        ("you/app", "docker.io", "you/app", False),
        ("app:latest", "docker.io", "library/app", False),
        ("localhost:5000/a/b@sha256:" + "0" * 64, "localhost:5000", "a/b", True),
    ],
)
def test_image_names_are_read_as_docker_reads_them(name, registry, path, pinned):
    image = parse(name)
    assert (image.registry, image.path, image.pinned) == (registry, path, pinned)


@pytest.mark.parametrize("name", ["", "You/App", "a/b:", "a b", "a/b@sha256:12", "a//b", "a/b:1:2"])
def test_bad_image_names_are_refused(name):
    with pytest.raises(ValueError, match="is no image name"):
        parse(name)
