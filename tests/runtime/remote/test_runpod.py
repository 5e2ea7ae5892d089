"""The RunPod client against the platform on loopback; the platform checks exchanges by the OpenAPI documents."""

import time

import pytest

from runtime.remote.http import RemoteError, TransientError
from runtime.remote.runpod import RunPod
from tests.runpod.contract import DOCUMENTS
from tests.runpod.platform import KEY, RefusalError, platform

POD = {
    "name": "mi-job-1", "image": "r/i@sha256:0", "gpu": {"id": "NVIDIA L4", "count": 2}, "cloud": "SECURE", "disk": 20,
    "env": {"A": "b"}, "args": "bash training/pod/run.sh",
}  # fmt: skip


@pytest.fixture
def runpod():
    with platform() as made:
        yield made


@pytest.fixture
def api(runpod):
    return RunPod(KEY, api=runpod.url)


def test_a_pod_is_made_found_billed_and_deleted(api, runpod):
    made = api.create_pod(POD)
    assert (made.name, made.status, made.usd_per_hour) == ("mi-job-1", "RUNNING", 0.78)
    assert api.pods() == [made] == [api.pod(made.id)]
    runpod.pods[made.id].began -= 3600
    assert api.pod_bill(made.id, time.time() - 7200, time.time()) == pytest.approx(0.78, rel=0.01)
    api.delete_pod(made.id)
    api.delete_pod(made.id)
    assert api.pod(made.id) is None


def test_the_catalog_has_prices_pools_and_free_gpus(api, runpod):
    runpod.gpus["NVIDIA L4"]["availability"] = "NONE"
    first, second = api.gpus("POD", count=2)
    assert (first.id, first.availability, second.availability) == ("NVIDIA L4", "NONE", "HIGH")
    assert (second.secure_usd, second.serverless_usd, second.pool, second.most) == (0.27, 0.3, "AMPERE_24", 8)


def test_logs_are_lines(api, runpod, tmp_path):
    made = api.create_pod(POD)
    runpod.pods[made.id].log = tmp_path / "log"
    (tmp_path / "log").write_text("one\ntwo\n")
    assert api.pod_logs(made.id) == b"one\ntwo\n"


@pytest.mark.parametrize(
    ("refusal", "kind", "said"),
    [
        (RefusalError(401), RemoteError, "does not accept the API key"),
        (RefusalError(402, "no balance"), RemoteError, r"refused \(402\): no balance"),
        (RefusalError(429, "slower"), TransientError, "429"),
        (RefusalError(503, "later"), TransientError, "503"),
    ],
)
def test_refusals_say_why(api, runpod, refusal, kind, said):
    runpod.refuse_next = [refusal]
    with pytest.raises(kind, match=said) as error:
        api.pods()
    assert error.value.status == refusal.status


@pytest.mark.parametrize(
    ("change", "said"),
    [({"interruptible": True}, "interruptible"), ({"gpu": {"id": 3}}, "gpu.id"), ({"image": None}, "image")],
)
def test_the_documents_refuse_what_the_platform_would_refuse(change, said):
    for document in DOCUMENTS:
        problems = document.request("POST", "/v2/pods", {**POD, **change})
        assert any(said in problem for problem in problems), problems
        assert document.request("POST", "/v2/pods", POD) == []
