"""Kubernetes Jobs: strictly valid manifests, the verbs, and the refusals of an API server."""

from collections.abc import Iterator
from pathlib import Path

import kubernetes_validate
import pytest

from tests.runtime.remote.answers import UNKNOWN_FORMS, answering
from tests.training.plane.launchers.cluster import Cluster
from training.plane.launcher import (
    AnswerLostError,
    Handle,
    LauncherAwayError,
    LaunchError,
    LaunchImpossibleError,
    Offer,
    PodSpec,
    Presence,
    Wanted,
)
from training.plane.launchers import kubernetes
from training.plane.launchers.kubernetes import KubernetesLauncher, manifest

NAME = "mi-x-01m8ha6mdy93g3j7mxwpk51rn5-1"
IMAGE = f"r/i@sha256:{'0' * 64}"
WITH_GPUS = kubernetes.Cluster("train", IMAGE, ("NVIDIA-L4", "NVIDIA-H100"), usd_per_hour=0.5)
POD = PodSpec({"JOB_TOKEN": "t"}, 3600.5, 3000.0, Wanted(count=2))
L4 = Offer("NVIDIA-L4", 1.0)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.close()


@pytest.fixture
def launcher(cluster: Cluster, tmp_path: Path) -> KubernetesLauncher:
    (tmp_path / "token").write_text("service-account\n")
    return KubernetesLauncher(cluster.url, tmp_path / "token", WITH_GPUS, "mi-x")


@pytest.mark.parametrize("offer", [L4, Offer("cpu", 0.0)])
def test_the_manifest_is_strictly_valid_and_bounded(offer: Offer) -> None:
    made = manifest(NAME, offer, POD, WITH_GPUS, "mi-x")
    kubernetes_validate.validate(made, "1.37", strict=True)
    spec = made["spec"]
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (0, 3600)
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    [container] = pod["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"].get("nvidia.com/gpu") == (None if offer.kind == "cpu" else "2")
    assert pod.get("nodeSelector") == (None if offer.kind == "cpu" else {"nvidia.com/gpu.product": "NVIDIA-L4"})


def test_a_manifest_with_an_unknown_field_would_be_noticed() -> None:
    made = manifest(NAME, L4, POD, WITH_GPUS, "mi-x")
    made["spec"]["activeDeadline"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(made, "1.37", strict=True)


def test_a_job_is_made_once_seen_and_deleted(launcher: KubernetesLauncher, cluster: Cluster) -> None:
    assert launcher.offers(Wanted(gpus=("NVIDIA-H100",), count=2)) == [Offer("NVIDIA-H100", 1.0)]
    for _ in range(2):
        launcher.launch(NAME, L4, POD)
    assert list(cluster.jobs) == [NAME]
    machine = Handle(NAME)
    assert launcher.look(machine).presence is Presence.PROVISIONING
    cluster.jobs[NAME]["status"] = {"ready": 1, "active": 1}
    assert launcher.look(machine).presence is Presence.RUNNING
    assert launcher.mine() == [machine]
    assert launcher.logs(machine, 100) == b"one\ntwo\n"
    for now in (False, True, True):
        launcher.stop(machine, now=now)
    assert launcher.look(machine).presence is Presence.ABSENT
    assert launcher.logs(machine, 100) is None


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ({"type": "Complete", "status": "True"}, 0),
        ({"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}, 77),
        ({"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}, None),
    ],
)
def test_an_ended_job_says_how(
    launcher: KubernetesLauncher, cluster: Cluster, condition: dict[str, str], code: int | None
) -> None:
    launcher.launch(NAME, L4, POD)
    cluster.jobs[NAME]["status"] = {"conditions": [condition]}
    seen = launcher.look(Handle(NAME))
    assert (seen.presence, seen.exit_code) == (Presence.EXITED, code)


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        ((422, "invalid"), LaunchImpossibleError),
        ((403, "forbidden"), LaunchImpossibleError),
        ((403, "exceeded quota: gpus"), LaunchError),
        ((500, "oops"), AnswerLostError),
        ((0, ""), AnswerLostError),
    ],
)
def test_refusals_of_a_launch(
    launcher: KubernetesLauncher, cluster: Cluster, refusal: tuple[int, str], kind: type[LaunchError]
) -> None:
    cluster.refuse = [refusal]
    with pytest.raises(LaunchError) as error:
        launcher.launch(NAME, L4, POD)
    assert type(error.value) is kind
    assert bool(cluster.jobs) is (refusal[0] == 0)


def test_a_server_that_is_away_is_no_absent_machine(launcher: KubernetesLauncher, cluster: Cluster) -> None:
    for verb in (lambda: launcher.look(Handle(NAME)), launcher.mine, lambda: launcher.stop(Handle(NAME), now=True)):
        cluster.refuse = [(503, "later")]
        with pytest.raises(LauncherAwayError):
            verb()


@pytest.mark.parametrize("body", UNKNOWN_FORMS.values(), ids=UNKNOWN_FORMS)
def test_a_server_that_answers_in_another_form_is_away(body: bytes) -> None:
    with answering(body) as server:
        launcher = KubernetesLauncher(server.url, None, WITH_GPUS, "mi-x")
        with pytest.raises(LauncherAwayError):
            launcher.mine()
        if not body.startswith(b"{"):  # a Job without a status is new
            with pytest.raises(LauncherAwayError):
                launcher.look(Handle(NAME))
