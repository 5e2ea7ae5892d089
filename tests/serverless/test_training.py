"""The training actions against a real plane: addresses for bytes, and refusals as other actions have these."""

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from benchmarks.training.planes import PlaneProcess, texts
from benchmarks.training.planes import ask as exchange
from inference.config import Config as ServiceConfig
from serverless.config import Config
from serverless.handler import Handler
from serverless.training import PLACES
from tests.eventually import eventually_async
from tests.runtime.remote.answers import Write, answering

KEY = "mi_secret_of_the_endpoint"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneProcess]:
    process = PlaneProcess(tmp_path_factory.mktemp("plane"))
    yield process
    process.stop()


@pytest.fixture
def ask(plane: PlaneProcess) -> Callable[..., Any]:
    key = SecretStr(plane.keys["desk"])
    handler = Handler(Config(training_url=plane.url, training_key=key), ServiceConfig(device="cpu"))

    async def send(action: str, **body: object) -> Any:
        return await handler({"id": "sync-1", "input": {"action": action, **body}})

    return send


async def test_data_travel_by_address_and_a_job_runs_to_its_artifacts(
    ask: Callable[..., Any], plane: PlaneProcess
) -> None:
    content = texts()
    declared = {
        "name": "rows.csv",
        "kind": "texts",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    made = (await ask("upload_training_data", **declared))["output"]
    upload = made["upload"]
    assert exchange(upload["method"], upload["url"], content, upload["headers"]).status == 200
    assert (await ask("upload_training_data", dataset=made["id"]))["output"]["state"] in {"checking", "ready"}
    plane.wait(f"/datasets/{made['id']}", "ready")
    assert (await ask("process_status", dataset=made["id"]))["output"]["rows"] == 40
    job = (await ask("train", recipe="kind: sentiment\nname: succeed\n", dataset=made["id"]))["output"]
    assert plane.finished(job["id"])["state"] == "succeeded"
    assert (await ask("process_status", job=job["id"]))["output"]["state"] == "succeeded"
    assert (await ask("list_models"))["output"] == {"models": []}
    artifacts = (await ask("list_models", job=job["id"]))["output"]["artifacts"]
    (found,) = (await ask("download", artifact=artifacts[0]["id"]))["output"]["artifacts"]
    content = exchange("GET", found["url"]).content
    assert hashlib.sha256(content).hexdigest() == artifacts[0]["sha256"]
    assert (await ask("cancel", job=job["id"]))["output"]["state"] == "succeeded"


@pytest.mark.parametrize(
    ("action", "body", "kind", "says"),
    [
        ("train", {"recipe": "kind: nothing", "dataset": "0" * 26}, "validation", "recipe"),
        ("train", {"dataset": "0" * 26}, "validation", "recipe is needed"),
        ("process_status", {"job": "0" * 26}, "validation", "no job"),
        ("process_status", {"job": "../../metrics"}, "validation", ""),
        ("cancel", {"job": 5}, "validation", "job must be a text"),
        ("cancel", {"job": ".."}, "validation", "job must be a text"),
        ("train", {"recipe": "a", "dataset": "b", "idempotency_key": "a\nX: y"}, "validation", "idempotency_key"),
        ("train", {"recipe": "a", "dataset": "b", "idempotency_key": "\U0001f600"}, "validation", "idempotency_key"),
        ("upload_training_data", {"name": "x"}, "validation", "kind is needed"),
    ],
)
async def test_refusals_name_the_mistake(
    ask: Callable[..., Any], action: str, body: dict[str, Any], kind: str, says: str
) -> None:
    found = await ask(action, **body)
    assert found["status"] == "error", found
    assert found["error_type"] == kind, found
    assert says in found["error"]


async def test_without_a_plane_the_actions_say_so_and_a_wrong_key_is_named(plane: PlaneProcess) -> None:
    nowhere = Handler(Config(), ServiceConfig(device="cpu"))
    found = await nowhere({"id": "sync-1", "input": {"action": "list_models"}})
    assert (found["error_type"], "MARKET_SERVERLESS_TRAINING_URL" in found["error"]) == ("service_unavailable", True)
    wrong = Handler(Config(training_url=plane.url, training_key=SecretStr("mi_x")), ServiceConfig(device="cpu"))
    found = await wrong({"id": "sync-1", "input": {"action": "list_models"}})
    assert "refused this endpoint's key" in found["error"]
    assert "mi_x" not in json.dumps(found)


def hostile(url: str) -> Callable[..., Any]:
    handler = Handler(Config(training_url=url, training_key=SecretStr(KEY)), ServiceConfig(device="cpu"))

    async def send(action: str, **body: object) -> Any:
        return await handler({"id": "sync-1", "input": {"action": action, **body}})

    return send


def drip(write: Write) -> None:
    """For a minute, far beyond the job's time."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        write(b" ")
        time.sleep(0.02)


async def test_the_jobs_timeout_bounds_the_whole_action() -> None:
    with answering(drip) as plane:
        before = time.monotonic()
        found = await hostile(plane.url)("list_models", timeout=0.3)
        assert time.monotonic() - before < 10  # 30 s without the job's timeout
    assert (found["error_type"], "within the job's timeout" in found["error"]) == ("runtime", True), found


async def test_a_silent_plane_refuses_further_actions_at_once_until_places_are_free_again() -> None:
    def body(write: Write) -> None:
        plane.over.wait(60)
        write(b"{}")

    with answering(body) as plane:
        ask = hostile(plane.url)
        waiting = [asyncio.create_task(ask("list_models", timeout=60)) for _ in range(PLACES)]

        await eventually_async(lambda: len(plane.seen) == PLACES)
        refused = await ask("list_models", timeout=60)
        assert refused["error_type"] == "service_unavailable"
        assert f"{PLACES} training actions wait" in refused["error"]
        assert await asyncio.to_thread(lambda: "other work") == "other work"
        assert not any(one.done() for one in waiting)
        plane.over.set()
        assert [(await one)["status"] for one in waiting] == ["success"] * PLACES
        assert (await ask("list_models"))["status"] == "success"


@pytest.mark.parametrize("status", [200, 400, 401, 403, 409, 429, 500, 503])
async def test_a_plane_that_repeats_the_endpoints_key_puts_it_into_no_result(status: int) -> None:
    for text in (f"{{'authorization': 'Bearer {KEY}'}}", KEY, "x" * 490 + KEY):
        echo = json.dumps({"detail": text, "errors": [{"authorization": KEY}]}).encode()
        with answering(echo, status) as plane:
            found = await hostile(plane.url)("list_models")
        assert found["status"] == "error"
        assert "mi_secret" not in json.dumps(found)


@pytest.mark.parametrize("answer", [b"text", b"\xff", b"[" * 200_000, b"NaN"])
async def test_an_answer_without_json_is_a_plane_that_is_away(answer: bytes) -> None:
    with answering(answer) as plane:
        found = await hostile(plane.url)("list_models")
    assert (found["error_type"], "without JSON" in found["error"]) == ("service_unavailable", True), found


async def test_a_plane_that_asks_for_endless_patience_is_away() -> None:
    with answering(b"{}", 503, {"Retry-After": "9" * 400}) as plane:
        assert (await hostile(plane.url)("list_models"))["error_type"] == "service_unavailable"
