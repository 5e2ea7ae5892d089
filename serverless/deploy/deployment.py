"""Template and endpoint: created or updated, tested, and rolled back when the test fails.

Owns the order of the steps and the undo of each step. A step reads the account before any change, so deploying the same
plan twice changes nothing, and a retry after a lost answer finds the result of the first attempt.
"""

from collections.abc import Callable, Mapping
from typing import Any

from serverless.deploy.api import Api, ApiError, Record
from serverless.deploy.http import RemoteError, retried
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

    def __init__(self, plan: Plan, api: Api, say: Say, *, test_timeout: float) -> None:
        self._plan = plan
        self._api = api
        self._say = say
        self._test_timeout = test_timeout
        self._undo: list[tuple[str, Undo]] = []

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
        plan, account = self._plan, self._api.account()
        found = _named(account.templates, plan.template_name)
        fields: Record = {
            "name": plan.template_name,
            "imageName": plan.image,
            "dockerArgs": COMMAND,
            "containerDiskInGb": plan.disk_gb,
            "volumeInGb": 0,
            "env": [{"key": name, "value": value} for name, value in sorted(plan.env.items())],
            "isServerless": True,
            "readme": "",
        }
        if plan.registry_auth:
            fields["containerRegistryAuthId"] = plan.registry_auth
        return self._ensure("template", found, fields, self._api.save_template, self._delete_template)

    def _endpoint(self, template_id: str) -> Record:
        plan, account = self._plan, self._api.account()
        fields = {
            "name": plan.name,
            "templateId": template_id,
            "gpuIds": plan.gpu,
            "idleTimeout": plan.idle_seconds,
            "scalerType": "QUEUE_DELAY",
            "scalerValue": 4,
            "workersMin": plan.workers_min,
            "workersMax": plan.workers_max,
        }
        found = _named(account.endpoints, plan.name)
        return self._ensure("endpoint", found, fields, self._api.save_endpoint, self._delete_endpoint)

    def _ensure(
        self,
        kind: str,
        found: Record | None,
        fields: Mapping[str, Any],
        save: Callable[[Mapping[str, Any]], Record],
        delete: Callable[[Record], None],
    ) -> Record:
        """Create or update the record to have these fields, and note the undo."""
        if found is None:
            # The undo is noted before the save, because a save may succeed although the answer is lost.
            self._undo.append((f"{kind} {fields['name']!r}", lambda: delete({"name": fields["name"]})))
            saved = save(fields)
            self._say(f"{kind} {fields['name']!r} created ({saved['id']})")
            return saved
        if all(found.get(name) == value for name, value in fields.items() if name in found):
            self._say(f"{kind} {fields['name']!r} is as it should be ({found['id']})")
            return found
        before = {"id": found["id"], **{name: found.get(name, value) for name, value in fields.items()}}
        self._undo.append((f"{kind} {fields['name']!r}", lambda: save(before)))
        saved = save({"id": found["id"], **fields})
        self._say(f"{kind} {fields['name']!r} updated ({saved['id']})")
        return saved

    def _delete_template(self, record: Record) -> None:
        if _named(self._api.account().templates, record["name"]):
            self._api.delete_template(record["name"])

    def _delete_endpoint(self, record: Record) -> None:
        """Set the endpoint's workers to zero, as the platform requires, then delete the endpoint."""
        found = _named(self._api.account().endpoints, record["name"])
        if found is not None:
            kept = ("id", "name", "templateId", "gpuIds", "idleTimeout", "scalerType", "scalerValue")
            self._api.save_endpoint({**{name: found[name] for name in kept}, "workersMin": 0, "workersMax": 0})
            self._api.delete_endpoint(found["id"])

    def _test(self, endpoint: Record) -> None:
        self._say("asking for its health; a cold start pulls the image and may take minutes")
        job = self._api.run(endpoint["id"], HEALTH, timeout=self._test_timeout)
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


def _named(records: list[Record], name: str) -> Record | None:
    """The record of this name. The platform appends ` -fb` to the name of an endpoint with fast boot."""
    return next((record for record in records if record["name"].removesuffix(" -fb") == name), None)
