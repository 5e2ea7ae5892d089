"""Machines that are Kubernetes Jobs.

Owns the manifest of a Job and the meaning of its conditions. A Job has the attempt's name, so that the API server makes
no second one; `activeDeadlineSeconds` ends the Job when the plane is away. Sources: the API reference of batch/v1.
"""

import urllib.parse
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from market_inference.contract.regular_file import opened
from runtime.remote.http import Http, RemoteError
from runtime.remote.shapes import record, text, understood
from training.plane.launcher import (
    Handle,
    Launcher,
    LauncherAwayError,
    LaunchError,
    Made,
    Offer,
    PodSpec,
    Presence,
    Seen,
    Wanted,
    fitting,
)
from training.plane.launchers.remote import SCRIPT, asking, launch_error

PLANE_LABEL: Final = "market-inference/plane"
GPU_LABEL: Final = "nvidia.com/gpu.product"
# The Job stays for so long after its end: the plane deletes the Job before.
KEPT_SECONDS: Final = 3600
DEADLINE_CODE: Final = 77
_USER: Final = 10001


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where Jobs are made, and with which image. `gpus`: values of the nodes' label GPU_LABEL; none for CPUs."""

    namespace: str
    image: str
    gpus: Sequence[str] = ()
    usd_per_hour: float = 0.0
    memory: str = "16Gi"
    disk: str = "40Gi"


class KubernetesLauncher(Launcher):
    """Runs attempts as Jobs of one namespace. `prefix` is the value of the label of this plane's Jobs."""

    def __init__(
        self, url: str, token_file: Path | None, cluster: Cluster, prefix: str, *, authority: str = ""
    ) -> None:
        """Raises OSError for a missing file of certificates."""
        self._http = Http({}, timeout=15.0, authority=authority)
        self._token_file = token_file
        self._core = f"{url.rstrip('/')}/api/v1/namespaces/{cluster.namespace}"
        self._jobs = f"{url.rstrip('/')}/apis/batch/v1/namespaces/{cluster.namespace}/jobs"
        self._cluster = cluster
        self._prefix = prefix

    def offers(self, wanted: Wanted) -> list[Offer]:
        """The configured GPU types at the configured price of a GPU; a node with CPUs alone when there are none."""
        price = self._cluster.usd_per_hour
        if not self._cluster.gpus:
            return fitting([Offer("cpu", price)], wanted)
        return fitting([Offer(gpu, price * wanted.count) for gpu in self._cluster.gpus], wanted)

    def launch(self, name: str, offer: Offer, pod: PodSpec) -> Made:
        """Make the Job; a Job of this name that exists is enough. Raises LaunchError."""
        try:
            self._ask("POST", self._jobs, manifest(name, offer, pod, self._cluster, self._prefix))
        except RemoteError as error:
            if error.status != 409:
                raise _launch_error(error) from None
        return Made()

    @asking("the cluster")
    def look(self, machine: Handle) -> Seen:
        """The Job, present until the last of its pods is gone."""
        found = self._found(f"{self._jobs}/{machine.name}")
        if found is None:
            return Seen(Presence.ABSENT)
        status = found.get("status", {})
        for condition in status.get("conditions", ()):
            if condition["status"] == "True" and condition["type"] in {"Complete", "Failed"}:
                late = condition.get("reason") == "DeadlineExceeded"
                code = 0 if condition["type"] == "Complete" else DEADLINE_CODE if late else None
                return Seen(Presence.EXITED, code)
        return Seen(Presence.RUNNING if status.get("ready") else Presence.PROVISIONING)

    def stop(self, machine: Handle, *, now: bool) -> None:
        """Delete the Job after its pods, which get SIGTERM, and SIGKILL at once when `now`."""
        body = {"propagationPolicy": "Foreground", **({"gracePeriodSeconds": 0} if now else {})}
        try:
            self._ask("DELETE", f"{self._jobs}/{machine.name}", body)
            if now:
                self._ask("DELETE", f"{self._core}/pods?{_selector(f'job-name={machine.name}')}", body)
        except RemoteError as error:
            if error.status != 404:
                raise LauncherAwayError(str(error), error.retry_after) from None

    @asking("the cluster")
    def mine(self) -> list[Handle]:
        """The Jobs with the plane's label."""
        query = _selector(f"{PLANE_LABEL}={self._prefix}")
        found = self._ask("GET", f"{self._jobs}?{query}")
        return [Handle(text(job["metadata"]["name"])) for job in found["items"]]

    def logs(self, machine: Handle, most: int) -> bytes | None:
        """The end of the log of the Job's pod, while there is one."""
        with suppress(RemoteError), understood("the cluster"):
            pods = self._ask("GET", f"{self._core}/pods?{_selector(f'job-name={machine.name}')}")["items"]
            if pods:
                url = f"{self._core}/pods/{pods[-1]['metadata']['name']}/log?limitBytes={most}&tailLines=5000"
                return self._http.exchange(url, headers=self._headers())
        return None

    def _found(self, url: str) -> Any:
        try:
            return record(self._ask("GET", url))
        except RemoteError as error:
            if error.status == 404:
                return None
            raise

    def _ask(self, method: str, url: str, body: Any = None) -> Any:
        return self._http.json(url, body, self._headers(), method=method)

    def _headers(self) -> dict[str, str]:
        """The service account's token, read again each time: the kubelet replaces the token every hour."""
        if self._token_file is None:
            return {}
        try:
            with opened(self._token_file) as file:
                return {"Authorization": f"Bearer {file.read().decode('ascii').strip()}"}
        except (OSError, ValueError) as error:
            raise LauncherAwayError(f"the token of the cluster cannot be read: {error}") from None


def manifest(name: str, offer: Offer, pod: PodSpec, cluster: Cluster, prefix: str) -> dict[str, Any]:
    """The Job: one pod, never restarted, under the restricted Pod Security Standard."""
    labels = {"app.kubernetes.io/name": "market-inference-training", PLANE_LABEL: prefix}
    gpu = {} if offer.kind == "cpu" else {"nvidia.com/gpu": str(pod.wanted.count)}
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": _USER, "runAsGroup": _USER, "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "training",
                "image": cluster.image,
                "command": ["bash", SCRIPT],
                "workingDir": "/work",
                "env": [{"name": key, "value": value} for key, value in pod.environment.items()],
                "resources": {
                    "requests": {"cpu": "1", "memory": cluster.memory, "ephemeral-storage": cluster.disk},
                    "limits": {"memory": cluster.memory, "ephemeral-storage": cluster.disk, **gpu},
                },
                "securityContext": {
                    "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": "work", "mountPath": "/work"}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
            }
        ],
        "volumes": [{"name": "work", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
    }  # fmt: skip
    if offer.kind != "cpu":
        spec["nodeSelector"] = {GPU_LABEL: offer.kind}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "activeDeadlineSeconds": int(pod.seconds),
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def _launch_error(error: RemoteError) -> LaunchError:
    # A quota that is used up is a 403, and may be free later.
    if error.status == 403 and "exceeded quota" in error.detail:
        return LaunchError(str(error), 60.0)
    return launch_error(error)


def _selector(label: str) -> str:
    return urllib.parse.urlencode({"labelSelector": label})
