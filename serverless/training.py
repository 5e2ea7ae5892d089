"""The actions of the training plane: thin calls of its HTTP API, in JSON.

Owns the actions and their inputs. Datasets and artifacts travel by signed addresses between the caller and the plane's
store, never through a job: the platform bounds inputs at 10 MB.
"""

import asyncio
import functools
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

from google.rpc import code_pb2

from market_inference.contract.errors import (
    InvalidRequestError,
    OverloadedError,
    PermissionDeniedError,
    ServiceError,
    ServiceUnavailableError,
    Violation,
)
from runtime.remote.http import Http, RemoteError, TransientError
from serverless.config import Config
from serverless.request import Request

_DATASET: Final = ("name", "kind", "bytes", "sha256")


class PlaneConflictError(ServiceError):
    """The plane refused: the request does not fit the state of a dataset, job or artifact."""

    code = code_pb2.FAILED_PRECONDITION
    reason = "PLANE_CONFLICT"


class TrainingActions:
    """The plane of the configuration. Raises ServiceUnavailableError for each action where none is configured."""

    def __init__(self, config: Config) -> None:
        self._url = config.training_url.rstrip("/")
        key = config.training_key.get_secret_value() if config.training_key else ""
        self._http = Http({"Authorization": f"Bearer {key}"} if key else {})
        self._actions: dict[str, Callable[[dict[str, Any]], Any]] = {
            "upload_training_data": self._upload,
            "train": self._train,
            "process_status": self._status,
            "cancel": self._cancel,
            "list_models": self._models,
            "download": self._download,
        }

    async def answer(self, request: Request) -> dict[str, Any]:
        """The output of an action. Raises ServiceError."""
        if not self._url:
            raise ServiceUnavailableError("this endpoint has no training plane: set MARKET_SERVERLESS_TRAINING_URL")
        found = await asyncio.to_thread(functools.partial(self._actions[request.action], request.body))
        return found if isinstance(found, dict) else {"result": found}

    def _upload(self, body: dict[str, Any]) -> Any:
        """Declare a dataset; with `dataset`, sign the part `part`, or complete the upload with `etags`.

        The answer says where to send the bytes: `upload` is one signed address, `parts` their number and size.
        """
        if "dataset" not in body:
            return self._ask("/datasets", {name: _needed(body, name) for name in _DATASET})
        path = f"/datasets/{_id(body, 'dataset')}"
        if "part" in body:
            return self._ask(f"{path}/parts/{_whole(body, 'part')}", {})
        return self._ask(f"{path}/complete", {"etags": body.get("etags", [])})

    def _train(self, body: dict[str, Any]) -> Any:
        """Make a job of `recipe`, a YAML text or an object, and `dataset`."""
        recipe = _needed(body, "recipe")
        query = {"dataset": _needed(body, "dataset"), **({"dry_run": "true"} if body.get("dry_run") else {})}
        key = _key(body.get("idempotency_key"))
        sent = recipe.encode() if isinstance(recipe, str) else recipe
        return self._ask(f"/jobs?{urlencode(query)}", sent, {"Idempotency-Key": key} if key else {})

    def _status(self, body: dict[str, Any]) -> Any:
        """A job with attempts, cost and result; or a dataset with the report of its checks."""
        if "dataset" in body:
            return self._ask(f"/datasets/{_id(body, 'dataset')}")
        return self._ask(f"/jobs/{_id(body, 'job')}")

    def _cancel(self, body: dict[str, Any]) -> Any:
        return self._ask(f"/jobs/{_id(body, 'job')}/cancel", {})

    def _models(self, body: dict[str, Any]) -> Any:
        """Every model; the versions of `name`; one version with its lineage; or the artifacts of `job`."""
        if "job" in body:
            return self._ask(f"/jobs/{_id(body, 'job')}/artifacts")
        if "name" not in body:
            return self._ask("/models")
        path = f"/models/{_id(body, 'name')}/versions"
        return self._ask(f"{path}/{_id(body, 'version')}" if "version" in body else path)

    def _download(self, body: dict[str, Any]) -> Any:
        """One signed address for each of `artifacts`: ids as list_models has them for a job."""
        ids = body.get("artifacts") or [_needed(body, "artifact")]
        return self._ask("/artifacts/urls", {"ids": ids})

    def _ask(self, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        try:
            return self._http.json(f"{self._url}/api/training{path}", body, headers)
        except RemoteError as error:
            raise _translated(error) from None


def _translated(error: RemoteError) -> ServiceError:
    text = error.detail or str(error)
    if error.status in {401, 403}:
        return PermissionDeniedError(f"the training plane refused this endpoint's key: {text}")
    if error.status == 429:
        return OverloadedError(text, retry_after=error.retry_after or 5.0)
    if isinstance(error, TransientError):
        return ServiceUnavailableError(f"the training plane is away: {text}", retry_after=error.retry_after or 5.0)
    if error.status == 409:
        return PlaneConflictError(text)
    return InvalidRequestError([Violation("input", text)])


def _needed(body: Mapping[str, Any], name: str) -> Any:
    if body.get(name) in (None, ""):
        raise InvalidRequestError([Violation(name, "is needed")])
    return body[name]


def _id(body: Mapping[str, Any], name: str) -> str:
    value = _needed(body, name)
    if not isinstance(value, str) or len(value) > 100 or value in {".", ".."}:
        raise InvalidRequestError([Violation(name, "must be a text of at most 100 characters")])
    return quote(value, safe="")


def _key(value: Any) -> str:
    """A key as a header can carry it; empty for none."""
    if value in (None, ""):
        return ""
    text = str(value)
    if len(text) > 200 or not (text.isascii() and text.isprintable()):
        raise InvalidRequestError([Violation("idempotency_key", "must be at most 200 printable characters of ASCII")])
    return text


def _whole(body: Mapping[str, Any], name: str) -> int:
    value = _needed(body, name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidRequestError([Violation(name, "must be a whole number")])
    return value
