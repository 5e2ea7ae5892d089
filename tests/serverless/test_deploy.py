"""The deploy command against a local API and a local registry, both of which check every request."""

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner

from serverless.deploy import http
from serverless.deploy.api import literal
from serverless.deploy.command import deploy
from serverless.deploy.image import parse

KEY = "rpa_very-secret-key"
HEALTHY = {
    "status": "success",
    "output": {"status": "healthy", "gpu": {"device_name": "NVIDIA L4"}, "models": {"forecast": {}, "sentiment": {}}},
}
TEMPLATE_FIELDS = {
    "name": str,
    "imageName": str,
    "dockerArgs": str,
    "containerDiskInGb": int,
    "volumeInGb": int,
    "env": list,
    "isServerless": bool,
    "readme": str,
    "containerRegistryAuthId": str,
}
ENDPOINT_FIELDS = {
    "name": str,
    "templateId": str,
    "gpuIds": str,
    "idleTimeout": int,
    "scalerType": str,
    "scalerValue": int,
    "workersMin": int,
    "workersMax": int,
}


def graphql_object(text):
    """A GraphQL input object as Python values: with quoted names, the literal is JSON."""
    strings = []

    def keep(match):
        strings.append(match[0])
        return f"\0{len(strings) - 1}\0"

    bare = re.sub(r'"(?:[^"\\]|\\.)*"', keep, text)
    quoted = re.sub(r"([A-Za-z_]\w*)\s*:", r'"\1":', bare)
    return json.loads(re.sub("\0(\\d+)\0", lambda match: strings[int(match[1])], quoted))


class RunPod:
    """The platform: GraphQL, jobs and a container registry on one port. Unknown calls and fields fail the test."""

    def __init__(self):
        self.templates, self.endpoints, self.mutations, self.problems = {}, {}, [], []
        self.prices = {"NVIDIA L4": 0.4, "NVIDIA RTX A5000": 0.3}
        self.job = {"status": "COMPLETED", "output": HEALTHY}
        self.fail_next = []  # HTTP statuses for the next requests
        self.lose_answers_to = set()  # mutations that are carried out but answered with 502, once
        self.pending_polls = 1
        self.measured = 0
        self.labels = {"io.market-inference.models": "minilm fracast"}
        self.private = False

    def graphql(self, query):
        if query.startswith("query { myself"):
            mine = {"podTemplates": list(self.templates.values()), "endpoints": list(self.endpoints.values())}
            return {"data": {"myself": {"id": "u", **mine}}}
        if query.startswith("query { gpuTypes"):
            return {"data": {"gpuTypes": [{"id": name, "securePrice": price} for name, price in self.prices.items()]}}
        name = re.match(r"mutation \{ (\w+)\(", query)[1]
        self.mutations.append(name)
        result = getattr(self, name)(query)
        if name in self.lose_answers_to:
            self.lose_answers_to.discard(name)
            return 502
        return result

    def saved(self, store, kind, fields, query):
        given = graphql_object(re.search(r"input: (\{.*?\})\) \{", query, re.DOTALL)[1])
        record_id = given.pop("id", None)
        for name, value in given.items():
            if not isinstance(value, fields.get(name, ())):
                self.problems.append(f"{kind}.{name} = {value!r}")
        if record_id is None and any(record["name"] == given["name"] for record in store.values()):
            return {"errors": [{"message": f"{kind} name must be unique"}]}
        record_id = record_id or f"{kind}-{len(store) + 1}"
        store[record_id] = {"id": record_id, **given}
        return {"data": {"saveTemplate": store[record_id], "saveEndpoint": store[record_id]}}

    def saveTemplate(self, query):  # noqa: N802 -- the API's name
        return self.saved(self.templates, "template", TEMPLATE_FIELDS, query)

    def saveEndpoint(self, query):  # noqa: N802 -- the API's name
        return self.saved(self.endpoints, "endpoint", ENDPOINT_FIELDS, query)

    def deleteEndpoint(self, query):  # noqa: N802 -- the API's name
        endpoint = self.endpoints[re.search(r'id: "([^"]+)"', query)[1]]
        if endpoint["workersMax"]:
            return {"errors": [{"message": "workers must be 0"}]}
        del self.endpoints[endpoint["id"]]
        return {"data": {"deleteEndpoint": None}}

    def deleteTemplate(self, query):  # noqa: N802 -- the API's name
        name = re.search(r'templateName: "([^"]+)"', query)[1]
        self.templates = {key: one for key, one in self.templates.items() if one["name"] != name}
        return {"data": {"deleteTemplate": None}}

    def answer(self, method, path, body, authorization):
        if path.startswith(("/v2/you/", "/token")):
            return self.registry(path, authorization)
        if self.fail_next:
            return self.fail_next.pop(0)
        if authorization != f"Bearer {KEY}":
            return 401
        if (method, path) == ("POST", "/graphql"):
            return self.graphql(body["query"])
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
        self.problems.append(f"{method} {path}")
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
def runpod(monkeypatch):
    platform = RunPod()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            found = platform.answer(self.command, self.path, body, self.headers.get("Authorization"))
            self.send_response(found if isinstance(found, int) else 200)
            realm = f"http://{self.headers['Host']}/token"
            self.send_header("WWW-Authenticate", f'Bearer realm="{realm}",service="registry"')
            self.end_headers()
            if not isinstance(found, int):
                self.wfile.write(json.dumps(found).encode())

        do_GET = do_POST  # noqa: N815 -- http.server's name

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    platform.url = f"http://127.0.0.1:{server.server_port}"
    yield platform
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def command(runpod):
    """`command(*options)` runs the command, checks that the output does not hold the key, and returns the result."""

    def run(*options, key=KEY, image="market-inference:1.0"):
        arguments = ["runpod", "--registry", "ghcr.io/you", "--image", image, "--gpu", "AMPERE_24", *options]
        environment = {"RUNPOD_API_KEY": key, "RUNPOD_API_BASE_URL": runpod.url, "RUNPOD_ENDPOINT_BASE_URL": runpod.url}
        result = CliRunner().invoke(deploy, [*arguments, "--registry-url", runpod.url], env=environment)
        assert KEY not in result.output
        assert runpod.problems == []
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


def test_a_deployment_creates_template_and_endpoint_and_checks_health(command, runpod):
    result = command("--max-workers", "5", "--env", 'MARKET_SERVERLESS_STREAMING=on"ly\\')
    assert result.exit_code == 0, result.output
    (template,), (endpoint,) = runpod.templates.values(), runpod.endpoints.values()
    assert template["imageName"] == "ghcr.io/you/market-inference:1.0"
    assert template["dockerArgs"] == "python -m serverless"
    assert template["env"] == [{"key": "MARKET_SERVERLESS_STREAMING", "value": 'on"ly\\'}], "values are escaped"
    assert template["isServerless"] is True
    assert (endpoint["templateId"], endpoint["gpuIds"]) == (template["id"], "AMPERE_24")
    assert (endpoint["workersMin"], endpoint["workersMax"]) == (0, 5)
    assert "healthy, on NVIDIA L4: forecast, sentiment" in result.output
    assert f"ready: {runpod.url}/endpoint-1/runsync" in result.output


def test_the_same_plan_twice_changes_nothing(command, runpod):
    assert command().exit_code == 0
    made = list(runpod.mutations)
    again = command()
    assert again.exit_code == 0
    assert runpod.mutations == made
    assert "is as it should be" in again.output


def test_a_changed_plan_updates_template_and_endpoint(command, runpod):
    command()
    assert command("--max-workers", "7").exit_code == 0
    ((endpoint),) = runpod.endpoints.values()
    assert endpoint["workersMax"] == 7
    assert len(runpod.templates) == 1


def test_a_dry_run_checks_and_prices_but_creates_nothing(command, runpod):
    result = command("--dry-run", "--min-workers", "1", "--max-workers", "4", "--calls-per-second", "100")
    assert result.exit_code == 0, result.output
    assert runpod.mutations == []
    assert "ok      size: 4.5 GB compressed" in result.output
    assert "ok      models: in the image: minilm fracast" in result.output
    assert "ok      GPU: AMPERE_24: NVIDIA L4, NVIDIA RTX A5000" in result.output
    assert "one worker: $0.30 to $0.40 an hour" in result.output
    assert "at most (4 workers): $1.20 to $1.60 an hour" in result.output
    # 10,000 seconds of one worker.
    assert "a million calls at 100 calls/s a worker: $0.83 to $1.11" in result.output
    assert "would make template 'market-inference-template'" in result.output


def test_a_measurement_after_the_deployment_prices_a_million_calls(command, runpod):
    result = command("--measure", "40")
    assert result.exit_code == 0, result.output
    assert runpod.measured == 40
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
        ({}, {"prices": {"NVIDIA H200": 3.0}}, "GPU: RunPod lists none of AMPERE_24"),
    ],
)
def test_a_failed_check_creates_nothing(command, runpod, options, settings, said):
    vars(runpod).update(settings)
    result = command(**options)
    assert result.exit_code == 1
    assert said in result.output
    assert "nothing was made" in result.output
    assert runpod.mutations == []


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
    assert runpod.mutations == []


def test_unpinned_large_and_unlabelled_images_are_warnings(command, runpod):
    runpod.labels = {}
    assert "warning models: no label" in command("--dry-run").output
    runpod.private = True
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
def test_a_failed_test_rolls_a_new_deployment_back(command, runpod, job):
    runpod.job = job
    result = command()
    assert result.exit_code == 1
    assert "everything is as before" in result.output
    assert (runpod.templates, runpod.endpoints) == ({}, {})


def test_a_failed_test_restores_an_updated_deployment(command, runpod):
    command()
    before = json.loads(json.dumps([runpod.templates, runpod.endpoints]))
    runpod.job = {"status": "FAILED"}
    result = command("--max-workers", "9", "--disk-gb", "40")
    assert result.exit_code == 1
    assert [runpod.templates, runpod.endpoints] == before


def test_a_failed_rollback_is_reported(command, runpod):
    runpod.job = {"status": "FAILED"}
    runpod.deleteEndpoint = lambda query: {"errors": [{"message": "not today"}]}
    result = command()
    assert (
        "could not be undone, see the console: endpoint 'market-inference' (RunPod refused: not today)" in result.output
    )


def test_a_test_that_never_ends_is_rolled_back(command, runpod):
    runpod.pending_polls = 10**9
    result = command("--test-timeout", "0.05")
    assert "the test job is still IN_PROGRESS" in result.output
    assert runpod.endpoints == {}


def test_transient_failures_are_retried(command, runpod):
    runpod.fail_next = [429, 503, 500]
    assert command().exit_code == 0
    assert len(runpod.endpoints) == 1


def test_a_lost_answer_creates_nothing_twice(command, runpod):
    runpod.lose_answers_to = {"saveTemplate", "saveEndpoint"}
    result = command()
    assert result.exit_code == 0, result.output
    assert (len(runpod.templates), len(runpod.endpoints)) == (1, 1)
    assert runpod.mutations == ["saveTemplate", "saveEndpoint"]


def test_retries_wait_with_full_jitter_and_end(monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)

    def step():
        raise http.TransientError("not now")

    def refuse():
        raise http.RemoteError("never")

    with pytest.raises(http.TransientError):
        http.retried(step, attempts=5, uniform=lambda low, high: high)
    assert waits == [0.5, 1.0, 2.0, 4.0]
    with pytest.raises(http.RemoteError):
        http.retried(refuse)
    assert len(waits) == 4, "what is refused for good is not tried again"


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


def test_a_value_cannot_break_out_of_a_query():
    hostile = 'x"}) { id } } mutation { deleteEndpoint(id: "e'
    assert graphql_object(literal({"env": [{"key": "A", "value": hostile}], "on": True, "n": 3})) == {
        "env": [{"key": "A", "value": hostile}],
        "on": True,
        "n": 3,
    }
