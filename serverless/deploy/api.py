"""The part of RunPod's GraphQL API that a deployment needs.

Owns the queries and the escaping of values. Sources of the calls' shapes: https://graphql-spec.runpod.io and the SDK.
Changes are not retried here: the caller knows which steps are safe to repeat.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serverless.deploy.http import Http, RemoteError, retried

API = "https://api.runpod.io"
JOBS = "https://api.runpod.ai/v2"
_TEMPLATE = (
    "id name imageName dockerArgs containerDiskInGb volumeInGb env { key value } isServerless containerRegistryAuthId"
)
_ENDPOINT = (
    "id name templateId gpuIds locations idleTimeout scalerType scalerValue workersMin workersMax networkVolumeId"
)
_FINAL = {"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"}

_POLL_SECONDS = 2.0

Record = dict[str, Any]


class ApiError(RemoteError):
    """The API refused a well-formed request."""


@dataclass(frozen=True, slots=True)
class Account:
    """The account's existing templates and endpoints."""

    templates: list[Record]
    endpoints: list[Record]


class Api:
    """`key`: the API key, sent in the Authorization header only."""

    def __init__(self, key: str, *, api: str = API, jobs: str = JOBS) -> None:
        self._http = Http({"Authorization": f"Bearer {key}"})
        self._api = api.rstrip("/")
        self._jobs = jobs.rstrip("/")

    def account(self) -> Account:
        fields = f"podTemplates {{ {_TEMPLATE} }} endpoints {{ {_ENDPOINT} }}"
        mine = self._ask(f"query {{ myself {{ id {fields} }} }}")["myself"]
        return Account(mine["podTemplates"], mine["endpoints"])

    def hourly_prices(self) -> dict[str, float]:
        """USD per hour of an on-demand pod in the secure cloud, by GPU type; types without a price are left out."""
        types = self._ask("query { gpuTypes { id securePrice } }")["gpuTypes"]
        return {one["id"]: one["securePrice"] for one in types if one.get("securePrice")}

    def save_template(self, fields: Mapping[str, Any]) -> Record:
        return self._saved("saveTemplate", fields, _TEMPLATE)

    def save_endpoint(self, fields: Mapping[str, Any]) -> Record:
        return self._saved("saveEndpoint", fields, _ENDPOINT)

    def delete_template(self, name: str) -> None:
        self._ask(f"mutation {{ deleteTemplate(templateName: {literal(name)}) }}")

    def delete_endpoint(self, endpoint_id: str) -> None:
        self._ask(f"mutation {{ deleteEndpoint(id: {literal(endpoint_id)}) }}")

    def _saved(self, mutation: str, fields: Mapping[str, Any], wanted: str) -> Record:
        saved: Record = self._ask(f"mutation {{ {mutation}(input: {literal(fields)}) {{ {wanted} }} }}")[mutation]
        return saved

    def _ask(self, query: str) -> Any:
        try:
            answer = self._http.json(f"{self._api}/graphql", {"query": query})
        except RemoteError as error:
            if error.status in {401, 403}:
                raise ApiError("RunPod does not accept the API key") from None
            raise
        if errors := answer.get("errors"):
            raise ApiError(f"RunPod refused: {errors[0].get('message', 'no reason given')}")
        return answer["data"]

    def run(self, endpoint_id: str, given: Mapping[str, Any], *, timeout: float) -> Record:
        """Run one job and wait for the result, cold start included. Raises RemoteError after `timeout` seconds."""
        base = f"{self._jobs}/{endpoint_id}"
        until = time.monotonic() + timeout
        # If the answer to a successful /run is lost, the retry runs the job twice, which is harmless.
        job: Record = retried(lambda: self._http.json(f"{base}/run", {"input": given}))
        status = f"{base}/status/{job['id']}"
        while job.get("status") not in _FINAL:
            if time.monotonic() > until:
                raise RemoteError(f"the test job is still {job.get('status')} after {timeout:g} s")
            time.sleep(_POLL_SECONDS)
            job = retried(lambda: self._http.json(status))
        return job

    def runsync(self, endpoint_id: str, given: Mapping[str, Any]) -> Record:
        """Run one job on a warm endpoint and wait for the result as long as the platform waits."""
        job: Record = retried(lambda: self._http.json(f"{self._jobs}/{endpoint_id}/runsync", {"input": given}))
        return job


def literal(value: Any) -> str:
    """A value as a GraphQL literal: strings are escaped as in JSON, an object's names are unquoted."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {literal(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(literal(one) for one in value) + "]"
    return json.dumps(value)
