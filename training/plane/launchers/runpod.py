"""Machines that are RunPod pods.

Owns what a pod is made of, and the meaning of the platform's statuses and refusals. The account's list of pods is read
at most every few seconds for all machines together: the platform limits the rate of requests. A new pod may be missing
from the list, and two pods may have one name, so a pod whose id is known is asked for by its id.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from runtime.remote.http import RemoteError
from runtime.remote.runpod import Pod, RunPod
from training.plane.launcher import (
    AnswerLostError,
    Handle,
    Launcher,
    LaunchError,
    LaunchImpossibleError,
    Made,
    Offer,
    OfferRefusedError,
    PodSpec,
    Presence,
    Seen,
    Wanted,
    fitting,
)
from training.plane.launchers.remote import SCRIPT, asking

# A pod that was asked for without an answer is not asked for again before.
HIDDEN_SECONDS: Final = 120.0
LIST_SECONDS: Final = 5.0
_PRESENCE: Final = {
    "PROVISIONING": Presence.PROVISIONING,
    "STARTING": Presence.PROVISIONING,
    "RUNNING": Presence.RUNNING,
    "EXITED": Presence.EXITED,
    "ERROR": Presence.EXITED,
    "TERMINATED": Presence.ABSENT,
}


@dataclass(frozen=True, slots=True)
class Container:
    """What a pod runs. `registry`: id of credentials saved on RunPod, `data_centers`: empty for any."""

    image: str
    disk_gb: int
    registry: str = ""
    data_centers: Sequence[str] = ()


class RunPodLauncher(Launcher):
    """Runs attempts as pods of the Secure Cloud. `prefix` begins the names of this plane's pods."""

    def __init__(
        self,
        api: RunPod,
        prefix: str,
        container: Container,
        *,
        list_seconds: float = LIST_SECONDS,
    ) -> None:
        self._api = api
        self._prefix = prefix
        self._container = container
        self._list_seconds = list_seconds
        self._lock = threading.Lock()
        self._listed_at = float("-inf")
        self._pods: list[Pod] = []

    @asking("the platform")
    def offers(self, wanted: Wanted) -> list[Offer]:
        """The GPU types of the catalog with a price and enough memory that are not sold out."""
        gpus = self._api.gpus("POD", count=wanted.count)
        free = [
            gpu
            for gpu in gpus
            if gpu.secure_usd and gpu.most >= wanted.count and gpu.memory_gb >= wanted.memory_gb
            if gpu.availability != "NONE"
        ]
        return fitting([Offer(gpu.id, gpu.secure_usd * wanted.count) for gpu in free], wanted)

    def launch(self, name: str, offer: Offer, pod: PodSpec) -> Made:
        """Make a pod. The platform takes any number of pods of one name. Raises LaunchError."""
        fields = {
            "name": name,
            "image": self._container.image,
            "args": f"bash {SCRIPT}",
            "env": dict(pod.environment),
            "disk": self._container.disk_gb,
            "cloud": "SECURE",
            "gpu": {"id": offer.kind, "count": pod.wanted.count},
        }
        if self._container.registry:
            fields["registry"] = self._container.registry
        if self._container.data_centers:
            fields["dataCenterIds"] = list(self._container.data_centers)
        try:
            made = self._api.create_pod(fields)
        except RemoteError as error:
            raise _launch_error(error) from None
        finally:
            self._forget_list()
        return Made(made.id, made.usd_per_hour)

    @asking("the platform")
    def look(self, machine: Handle) -> Seen:
        """The pod by its id, else the first pod of the name."""
        listed = [pod for pod in self._list() if pod.name == machine.name]
        if machine.id:
            known = next((pod for pod in listed if pod.id == machine.id), None)
            found = known or self._api.pod(machine.id)
        else:
            found = min(listed, key=lambda pod: pod.id, default=None)
        if found is None:
            return Seen(Presence.ABSENT, hidden_seconds=HIDDEN_SECONDS)
        presence = _presence(found)
        return Seen(presence, None, found.usd_per_hour, found.id, HIDDEN_SECONDS)

    @asking("the platform")
    def stop(self, machine: Handle, *, now: bool) -> None:
        """Terminate the pod, or all pods of the name when no id is known. A stopped pod would be billed."""
        ids = [machine.id] if machine.id else [pod.id for pod in self._list() if pod.name == machine.name]
        for pod in ids:
            self._api.delete_pod(pod)
        self._forget_list()

    @asking("the platform")
    def mine(self) -> list[Handle]:
        """The account's pods whose names begin with the prefix."""
        alive = [pod for pod in self._list() if _presence(pod) is not Presence.ABSENT]
        return [Handle(pod.name, pod.id) for pod in alive if pod.name.startswith(f"{self._prefix}-")]

    def logs(self, machine: Handle, most: int) -> bytes | None:
        """The end of the container's log, while there is a pod."""
        if not machine.id:
            return None
        try:
            return self._api.pod_logs(machine.id)[-most:]
        except RemoteError:
            return None

    @asking("the platform")
    def bill(self, machine: Handle, since: float, until: float) -> float | None:
        """The platform's bill for the pod."""
        return self._api.pod_bill(machine.id, since, until) if machine.id else None

    def _list(self) -> list[Pod]:
        with self._lock:
            if time.monotonic() - self._listed_at > self._list_seconds:
                self._pods = self._api.pods()
                self._listed_at = time.monotonic()
            return self._pods

    def _forget_list(self) -> None:
        with self._lock:
            self._listed_at = float("-inf")


def _presence(pod: Pod) -> Presence:
    """The presence. A pod of an unknown, later status is billed, and deadlines hold for the pod."""
    return _PRESENCE.get(pod.status, Presence.RUNNING)


def _launch_error(error: RemoteError) -> LaunchError:
    """The platform's refusal of a pod. A 400 is a lack of capacity as well as a broken rule: the next offer may do."""
    if error.status == 429:
        return LaunchError(str(error), error.retry_after)
    if error.status in {400, 403}:
        return OfferRefusedError(str(error))
    if error.status in {401, 402, 404, 422}:
        return LaunchImpossibleError(str(error))
    return AnswerLostError(str(error))
