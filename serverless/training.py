"""The actions of the training plane: thin calls of its HTTP API, in JSON.

Owns the actions, their inputs, and the places that actions take: a silent plane keeps PLACES threads, none of other
work, and further actions are refused at once. Datasets and artifacts travel by signed addresses between the caller and
the plane's store, never through a job: the platform bounds inputs at 10 MB.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from google.rpc import code_pb2

from market_inference.contract import deadline
from market_inference.contract.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    OverloadedError,
    PermissionDeniedError,
    ServiceError,
    ServiceUnavailableError,
    Violation,
)
from runtime.remote.http import LONGEST_WAIT_SECONDS, Http, RemoteError, TransientError
from serverless.config import Config
from serverless.request import Request

PLACES: Final = 16
"""Training actions at once; the plane answers most within milliseconds."""
_LONGEST_SECONDS: Final = 30.0
"""For an action whose job has more time."""
_RETRY_SECONDS: Final = 5.0
_DATASET: Final = ("name", "kind", "bytes", "sha256")


class PlaneConflictError(ServiceError):
    """The plane refused: the request does not fit the state of a dataset, job or artifact."""

    code = code_pb2.FAILED_PRECONDITION
    reason = "PLANE_CONFLICT"


class _Call(NamedTuple):
    """A request to the plane, without the part of the path that all requests have."""

    path: str
    body: Any = None
    headers: Mapping[str, str] = {}


class TrainingActions:
    """The plane of the configuration. Raises ServiceUnavailableError for each action where none is configured."""

    def __init__(self, config: Config) -> None:
        self._url = config.training_url.rstrip("/")
        key = config.training_key.get_secret_value() if config.training_key else ""
        self._key = key
        self._http = Http({"Authorization": f"Bearer {key}"} if key else {})
        self._threads = ThreadPoolExecutor(PLACES, "training-action")
        self._places = Semaphore(PLACES)
        self._actions: dict[str, Callable[[dict[str, Any]], _Call]] = {
            "upload_training_data": self._upload,
            "train": self._train,
            "process_status": self._status,
            "cancel": self._cancel,
            "list_models": self._models,
            "download": self._download,
        }

    async def answer(self, request: Request) -> dict[str, Any]:
        """The output of an action, within the job's time and at most 30 s. Raises ServiceError."""
        if not self._url:
            raise ServiceUnavailableError("this endpoint has no training plane: set MARKET_SERVERLESS_TRAINING_URL")
        call = self._actions[request.action](request.body)
        if not self._places.acquire(blocking=False):
            raise OverloadedError(
                f"{PLACES} training actions wait for the training plane, and no more can", retry_after=_RETRY_SECONDS
            )
        work = self._threads.submit(self._ask, call, request.deadline)
        # The place is free when the thread is: the end of a job, or of its time, does not end a DNS query.
        work.add_done_callback(lambda _: self._places.release())
        try:
            async with asyncio.timeout(request.deadline - deadline.now()):
                found = await asyncio.wrap_future(work)
        except (TimeoutError, ServiceUnavailableError):
            if deadline.now() < request.deadline:
                raise
            raise DeadlineExceededError("the training plane did not answer within the job's timeout") from None
        return found if isinstance(found, dict) else {"result": found}

    def _upload(self, body: dict[str, Any]) -> _Call:
        """Declare a dataset; with `dataset`, sign the part `part`, or complete the upload with `etags`.

        The answer says where to send the bytes: `upload` is one signed address, `parts` their number and size.
        """
        if "dataset" not in body:
            return _Call("/datasets", {name: _needed(body, name) for name in _DATASET})
        path = f"/datasets/{_id(body, 'dataset')}"
        if "part" in body:
            return _Call(f"{path}/parts/{_whole(body, 'part')}", {})
        return _Call(f"{path}/complete", {"etags": body.get("etags", [])})

    def _train(self, body: dict[str, Any]) -> _Call:
        """Make a job of `recipe`, a YAML text or an object, and `dataset`."""
        recipe = _needed(body, "recipe")
        query = {"dataset": _needed(body, "dataset"), **({"dry_run": "true"} if body.get("dry_run") else {})}
        key = _key(body.get("idempotency_key"))
        sent = recipe.encode() if isinstance(recipe, str) else recipe
        return _Call(f"/jobs?{urlencode(query)}", sent, {"Idempotency-Key": key} if key else {})

    def _status(self, body: dict[str, Any]) -> _Call:
        """A job with attempts, cost and result; or a dataset with the report of its checks."""
        if "dataset" in body:
            return _Call(f"/datasets/{_id(body, 'dataset')}")
        return _Call(f"/jobs/{_id(body, 'job')}")

    def _cancel(self, body: dict[str, Any]) -> _Call:
        return _Call(f"/jobs/{_id(body, 'job')}/cancel", {})

    def _models(self, body: dict[str, Any]) -> _Call:
        """Every model; the versions of `name`; one version with its lineage; or the artifacts of `job`."""
        if "job" in body:
            return _Call(f"/jobs/{_id(body, 'job')}/artifacts")
        if "name" not in body:
            return _Call("/models")
        path = f"/models/{_id(body, 'name')}/versions"
        return _Call(f"{path}/{_id(body, 'version')}" if "version" in body else path)

    def _download(self, body: dict[str, Any]) -> _Call:
        """One signed address for each of `artifacts`: ids as list_models has them for a job."""
        ids = body.get("artifacts") or [_needed(body, "artifact")]
        return _Call("/artifacts/urls", {"ids": ids})

    def _ask(self, call: _Call, until: float) -> Any:
        """The plane's answer, at most as late as `until`. Raises ServiceError."""
        seconds = max(0.0, min(until - deadline.now(), _LONGEST_SECONDS))
        try:
            url = f"{self._url}/api/training{call.path}"
            found = self._http.json(url, call.body, call.headers, timeout=seconds)
        except RemoteError as error:
            raise _translated(error) from None
        if self._key and self._key in json.dumps(found):
            raise ServiceUnavailableError("the training plane answered with this endpoint's key")
        return found


def _translated(error: RemoteError) -> ServiceError:
    text = error.detail or str(error)
    retry_after = min(error.retry_after or _RETRY_SECONDS, LONGEST_WAIT_SECONDS)
    if error.status in {401, 403}:
        return PermissionDeniedError(f"the training plane refused this endpoint's key: {text}")
    if error.status == 429:
        return OverloadedError(text, retry_after=retry_after)
    if isinstance(error, TransientError):
        return ServiceUnavailableError(f"the training plane cannot be reached: {text}", retry_after=retry_after)
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
