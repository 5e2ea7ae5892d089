"""Machines that a dstack server rents on other clouds.

Owns the form of a run and the meaning of its statuses. The server is a process of its own, called over HTTP: a run has
the attempt's name, which is unique in a project, and the server ends the run after `max_duration` and takes no machine
above `max_price`. Source of the shapes: the OpenAPI document of dstack 0.22.5.
"""

import base64
from typing import Any, Final

from runtime.remote.http import Http, RemoteError
from runtime.remote.shapes import record, text, usd
from training.plane.launcher import (
    Handle,
    LauncherAwayError,
    Made,
    Offer,
    PodSpec,
    Presence,
    Seen,
    Wanted,
    fitting,
)
from training.plane.launchers.remote import SCRIPT, asking, launch_error

# dstack takes names of at most 41 characters.
MOST_NAME_CHARACTERS: Final = 41
_MOST_OFFERS = 100
_MOST_RUNS = 100
_MOST_LISTED = 10_000
_MOST_LOG_LINES = 1000
_FREE = {"available", "idle", "unknown"}
_PRESENCE: Final = {
    "pending": Presence.PROVISIONING,
    "submitted": Presence.PROVISIONING,
    "provisioning": Presence.PROVISIONING,
    "running": Presence.RUNNING,
    "terminating": Presence.RUNNING,
    "terminated": Presence.EXITED,
    "failed": Presence.EXITED,
    "done": Presence.EXITED,
}


class DstackLauncher:
    """Runs attempts as tasks of one project. `prefix` begins the names of this plane's runs."""

    def __init__(self, url: str, token: str, project: str, image: str, disk_gb: int, prefix: str) -> None:
        self._http = Http({"Authorization": f"Bearer {token}"}, timeout=30.0)
        self._url = url.rstrip("/")
        self._project = project
        self._image = image
        self._disk_gb = disk_gb
        self._prefix = prefix

    @asking("dstack")
    def offers(self, wanted: Wanted) -> list[Offer]:
        """The GPU types that the server's clouds offer now, each at its best price."""
        run = self._run(None, wanted, gpus=wanted.gpus, usd_per_hour=wanted.max_usd_per_hour, environment={}, seconds=0)
        plan = self._asked("/runs/get_plan", {"run_spec": run, "max_offers": _MOST_OFFERS})
        best: dict[str, float] = {}
        for job in plan["job_plans"]:
            for offer in job["offers"]:
                gpus = offer["instance"]["resources"]["gpus"]
                if gpus and offer["availability"] in _FREE:
                    name = text(gpus[0]["name"])
                    price = usd(offer["price"])
                    best[name] = min(price, best.get(name, price))
        return fitting([Offer(name, price) for name, price in best.items()], wanted)

    def launch(self, name: str, offer: Offer, pod: PodSpec) -> Made:
        """Submit the run; an active run of this name is enough. Raises LaunchError."""
        run = self._run(
            name,
            pod.wanted,
            gpus=[offer.kind],
            usd_per_hour=offer.usd_per_hour,
            environment=dict(pod.environment),
            seconds=int(pod.run_seconds),
        )
        try:
            self._ask("/runs/apply", {"plan": {"run_spec": run, "current_resource": None}, "force": False})
        except RemoteError as error:
            if error.status != 400 or self.look(Handle(name)).presence is Presence.ABSENT:
                raise launch_error(error, refused=400) from None
        return Made()

    @asking("dstack")
    def look(self, machine: Handle) -> Seen:
        """The newest run of the name."""
        run = self._found(machine.name)
        if run is None:
            return Seen(Presence.ABSENT)
        submission = _submission(run)
        provisioned = submission.get("job_provisioning_data") or {}
        # A run of an unknown, later status is billed, and deadlines hold for the run.
        presence = _PRESENCE.get(run["status"], Presence.RUNNING)
        price = provisioned.get("price")
        return Seen(presence, submission.get("exit_status"), None if price is None else usd(price))

    def stop(self, machine: Handle, *, now: bool) -> None:
        """Stop the run, or abort the run when `now`."""
        if self.look(machine).presence in {Presence.PROVISIONING, Presence.RUNNING}:
            self._asked("/runs/stop", {"runs_names": [machine.name], "abort": now})

    @asking("dstack")
    def mine(self) -> list[Handle]:
        """The active runs of the project whose names begin with the prefix."""
        asked = {"project_name": self._project, "only_active": True, "include_jobs": False, "limit": _MOST_RUNS}
        found: list[Any] = []
        page: list[Any] = self._asked("/api/runs/list", asked)
        while page:
            found += page
            if len(page) < _MOST_RUNS:
                break
            if len(found) > _MOST_LISTED:
                raise ValueError(f"more than {_MOST_LISTED} active runs")
            after = {"prev_submitted_at": page[-1]["submitted_at"], "prev_run_id": page[-1]["id"]}
            page = self._asked("/api/runs/list", {**asked, **after})
        names = [text(run["run_spec"]["run_name"] or "") for run in found]
        return [Handle(name) for name in names if name.startswith(f"{self._prefix}-")]

    @asking("dstack")
    def logs(self, machine: Handle, most: int) -> bytes | None:
        """The newest lines of the run's log."""
        try:
            run = self._found(machine.name)
            if run is None or not _submission(run):
                return None
            asked = {"run_name": machine.name, "job_submission_id": _submission(run)["id"]}
            found = self._asked("/logs/poll", {**asked, "descending": True, "limit": _MOST_LOG_LINES})
        except LauncherAwayError:
            return None
        lines = [base64.b64decode(event["message"]) for event in reversed(found["logs"])]
        return b"".join(lines)[-most:]

    def forget(self, machine: Handle) -> None:
        """Delete the record of the run."""
        if self.look(machine).presence is Presence.EXITED:
            self._asked("/runs/delete", {"runs_names": [machine.name]})

    @asking("dstack")
    def bill(self, machine: Handle, since: float, until: float) -> float | None:
        """The run's cost as the server computes the cost from the cloud's price."""
        run = self._found(machine.name)
        return None if run is None else usd(run.get("cost", 0.0))

    def _run(
        self,
        name: str | None,
        wanted: Wanted,
        *,
        gpus: Any,
        usd_per_hour: float | None,
        environment: dict[str, str],
        seconds: int,
    ) -> dict[str, Any]:
        """The specification of a run of one task."""
        gpu: dict[str, Any] = {"count": wanted.count}
        if gpus:
            gpu["name"] = list(gpus)
        if wanted.memory_gb:
            gpu["memory"] = f"{wanted.memory_gb}GB.."
        task: dict[str, Any] = {
            "type": "task",
            "image": self._image,
            "commands": [f"bash {SCRIPT}"],
            "env": environment,
            "resources": {"gpu": gpu, "disk": {"size": f"{self._disk_gb}GB.."}},
            "retry": False,
            "spot_policy": "on-demand",
            "idle_duration": 0,
        }
        if seconds:
            task["max_duration"] = seconds
        if usd_per_hour:
            task["max_price"] = usd_per_hour
        return {"run_name": name, "configuration": task, "repo_data": {"repo_type": "virtual"}}

    def _found(self, name: str) -> Any:
        try:
            return record(self._ask("/runs/get", {"run_name": name}))
        except RemoteError as error:
            if error.status == 400 and "resource_not_exists" in error.detail:
                return None
            raise LauncherAwayError(str(error), error.retry_after) from None

    def _asked(self, path: str, body: Any) -> Any:
        with asking("the platform"):
            return self._ask(path, body)

    def _ask(self, path: str, body: Any) -> Any:
        start = self._url if path.startswith("/api/") else f"{self._url}/api/project/{self._project}"
        return self._http.json(f"{start}{path}", body, method="POST")


def _submission(run: Any) -> dict[str, Any]:
    """The newest submission of the run's only job; empty before the first."""
    submissions = run["jobs"][0]["job_submissions"] if run["jobs"] else []
    return dict(submissions[-1]) if submissions else {}
