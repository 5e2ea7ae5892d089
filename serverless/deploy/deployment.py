"""Template and endpoint: created or updated, tested, and rolled back when the test fails.

Owns the order of the steps and the undo of each step. A step reads the account before any change, so deploying the same
plan twice changes nothing, and a retry after a lost answer finds the result of the first attempt. The platform copies a
template's settings into an endpoint at the endpoint's creation only, so an update goes to the endpoint as well.
"""

from collections.abc import Callable, Mapping
from typing import Any

from runtime.remote.http import RemoteError, TransientError, retried
from runtime.remote.runpod import ApiError, Record, Records, RunPod
from serverless.deploy.jobs import Jobs
from serverless.deploy.plan import COMMAND, Plan

Say = Callable[[str], None]
Undo = Callable[[], object]
HEALTH = {"action": "health"}
# The platform allows deleting a template only some minutes after the deletion of the endpoint.
_DELETE_ATTEMPTS = 6


class DeploymentError(RuntimeError):
    """The deployment failed; the text says how far the rollback succeeded."""


class Deployment:
    """One application of a plan."""

    def __init__(self, plan: Plan, api: RunPod, jobs: Jobs, say: Say, *, test_timeout: float) -> None:
        self._plan = plan
        self._jobs = jobs
        self._say = say
        self._test_timeout = test_timeout
        self._undo: list[tuple[str, Undo]] = []
        self._api = api

    def apply(self) -> Record:
        """Deploy, test and return the endpoint. Raises DeploymentError after the rollback."""
        try:
            template = retried(self._template)
            endpoint = retried(lambda: self._endpoint(template["id"]))
            self._test(endpoint)
        except RemoteError as error:
            left = self._roll_back()
            raise DeploymentError(f"{error}{left}") from error
        except KeyboardInterrupt:
            left = self._roll_back()
            raise DeploymentError(f"interrupted{left}") from None
        return endpoint

    def _template(self) -> Record:
        fields = {"name": self._plan.template_name, **self._container()}
        return self._ensure(self._api.templates, fields, {"serverless": True, "startSsh": False, "startJupyter": False})

    def _endpoint(self, template_id: str) -> Record:
        plan = self._plan
        fields: Record = {
            "name": plan.name,
            "gpu": {"pools": [plan.gpu]},
            "workers": {"min": plan.workers_min, "max": plan.workers_max, "idleTimeout": plan.idle_seconds},
            "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4},
            **self._container(),
        }
        return self._ensure(self._api.endpoints, fields, {"type": "QUEUE", "templateId": template_id})

    def _container(self) -> Record:
        """The settings of a worker's container, as template and endpoint both hold them."""
        plan = self._plan
        fields: Record = {"image": plan.image, "args": COMMAND, "disk": plan.disk_gb, "env": dict(plan.env)}
        if plan.registry_auth:
            fields["registry"] = plan.registry_auth
        return fields

    def _ensure(self, records: Records, fields: Record, at_creation: Mapping[str, Any]) -> Record:
        """Create or update the record to have these fields, and note the undo."""
        kind, name = records.kind, fields["name"]
        found = records.named(name)
        if found is None:
            # The undo is noted before the creation, because the record may exist although the answer is lost.
            self._undo.append((f"{kind} {name!r}", lambda: _delete(records, name)))
            saved = records.create({**fields, **at_creation})
            self._say(f"{kind} {name!r} created ({saved['id']})")
            return saved
        before = {field: _view(field, found[field]) for field in fields if field in found}
        if {**before, "name": name} == fields:
            self._say(f"{kind} {name!r} is as it should be ({found['id']})")
            return found
        self._undo.append((f"{kind} {name!r}", lambda: _restore(records, found["id"], before, at_creation)))
        saved = records.update(found["id"], fields)
        self._say(f"{kind} {name!r} updated ({saved['id']})")
        return saved

    def _test(self, endpoint: Record) -> None:
        self._say("asking for its health; a cold start pulls the image and may take minutes")
        job = self._jobs.run(endpoint["id"], HEALTH, timeout=self._test_timeout)
        result = job.get("output") or {}
        health = result.get("output", {}) if isinstance(result, dict) else {}
        if job["status"] != "COMPLETED" or health.get("status") != "healthy":
            why = job.get("error") or health.get("status") or "no health in its answer"
            raise ApiError(f"the endpoint's test failed ({job['status']}): {why}")
        gpu = health["gpu"]["device_name"] or "no GPU"
        self._say(f"healthy, on {gpu}: {', '.join(health['models'])}")

    def _roll_back(self) -> str:
        """Undo the steps, last first, and return a text on the result for the user."""
        left = []
        for what, undo in reversed(self._undo):
            try:
                retried(undo, attempts=_DELETE_ATTEMPTS)
                self._say(f"rolled back: {what}")
            except RemoteError as error:
                left.append(f"{what} ({error})")
        return f"; could not be undone, see the console: {', '.join(left)}" if left else "; everything is as before"


def _delete(records: Records, name: str) -> None:
    """Delete the record of this name, if there is one. A template in use may be free in some minutes."""
    found = records.named(name)
    if found is None:
        return
    try:
        records.delete(found["id"])
    except RemoteError as error:
        if error.status == 400 and records.kind == "template":
            raise TransientError(str(error), error.status) from None
        raise


def _restore(records: Records, record_id: str, before: Record, at_creation: Mapping[str, Any]) -> None:
    """Give the record its former fields. The deletion of an endpoint may have deleted the endpoint's template."""
    if any(record["id"] == record_id for record in records.all()):
        records.update(record_id, before)
    else:
        records.create({**before, **at_creation})


def _view(field: str, value: Any) -> Any:
    """The part of a field that a plan decides, and that may be sent back: the platform adds CUDA versions to `gpu`."""
    return {"pools": value["pools"]} if field == "gpu" and value else value
