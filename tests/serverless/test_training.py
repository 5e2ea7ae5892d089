"""The training actions against a real plane: addresses for bytes, and refusals as other actions have these."""

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from benchmarks.training.planes import PlaneProcess, texts
from benchmarks.training.planes import ask as exchange
from inference.config import Config as ServiceConfig
from serverless.config import Config
from serverless.handler import Handler


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
