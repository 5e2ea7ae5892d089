"""RunPod's REST API, version 2: catalog, pods, serverless endpoints, templates, billing.

Owns the addresses, the shapes of requests and answers, and the reading of answers that this project uses. Source: the
platform's OpenAPI document, https://api.runpod.io/v2/openapi.json. No call is retried here: the caller knows which
calls are safe to repeat.
"""

import json
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from runtime.remote.http import Http, RemoteError
from runtime.remote.shapes import record, text, understood, usd, usd_or_credit

API: Final = "https://api.runpod.io"
_MOST_PAGES = 100
_USD_DIGITS = 9  # charges and credits that are equal are a bill of 0, whatever the rounding of their sum
_MOST_LOG_LINES = 5000
_MOST_LOG_BYTES = 8 << 20
_SILENT_SECONDS = 1.0

Record = dict[str, Any]
Product = Literal["POD", "SERVERLESS"]


class ApiError(RemoteError):
    """The API refused a well-formed request."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU type of the catalog. Prices are USD per hour of one GPU; 0 where the type is not offered.

    `pool`: the serverless pool, empty for none. `availability`: NONE, LOW, MEDIUM or HIGH.
    """

    id: str
    pool: str
    memory_gb: int
    secure_usd: float
    serverless_usd: float
    most: int
    availability: str

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "Gpu":
        """From the catalog's record."""
        price = told["price"]
        return cls(
            id=text(told["id"]),
            pool=text(told["pool"] or ""),
            memory_gb=int(told["memory"]),
            secure_usd=usd(price["secure"]) if told["secure"] else 0.0,
            serverless_usd=usd(price.get("serverless", 0.0)),
            most=int(told["maxCount"]["secure"]),
            availability=told.get("availability", "NONE"),
        )


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod. `status`: PROVISIONING, STARTING, RUNNING, EXITED, ERROR or TERMINATED. `usd_per_hour`: now."""

    id: str
    name: str
    status: str
    usd_per_hour: float

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "Pod":
        """From the API's record."""
        return cls(text(told["id"]), text(told["name"]), text(told["status"]), usd(told["cost"]))


class RunPod:
    """`key`: the API key, sent in the Authorization header only. Every method raises RemoteError."""

    def __init__(self, key: str, *, api: str = API, timeout: float = 30.0) -> None:
        self._http = Http({"Authorization": f"Bearer {key}"}, timeout=timeout)
        self._api = f"{api.rstrip('/')}/v2"
        self.templates = Records(self, "template", "/templates", "templates")
        self.endpoints = Records(self, "endpoint", "/serverless", "endpoints")

    @understood("RunPod")
    def gpus(self, product: Product, *, count: int = 1) -> list[Gpu]:
        """The GPU types with prices, and how many of them are free for `count` GPUs at once."""
        found = self._get("/catalog/gpus", include="AVAILABILITY", product=product, count=count)["gpus"]
        return [Gpu.of(one) for one in found]

    @understood("RunPod")
    def pods(self) -> list[Pod]:
        """All pods of the account."""
        return [Pod.of(one) for one in self.listed("/pods", "pods")]

    @understood("RunPod")
    def pod(self, pod: str) -> Pod | None:
        """The pod; None when there is none of this id."""
        try:
            return Pod.of(self._get(f"/pods/{_quoted(pod)}"))
        except RemoteError as error:
            if error.status == 404:
                return None
            raise

    @understood("RunPod")
    def create_pod(self, fields: Mapping[str, Any]) -> Pod:
        """Make a pod of these fields of CreatePodRequest. Repeated, the call makes a second pod."""
        return Pod.of(self.send("POST", "/pods", fields))

    def delete_pod(self, pod: str) -> None:
        """Terminate the pod. A pod that is gone is no error."""
        self.delete(f"/pods/{_quoted(pod)}")

    @understood("RunPod")
    def pod_logs(self, pod: str) -> bytes:
        """The newest lines of the container's log. The API sends them as events and then keeps the answer open."""
        query = urllib.parse.urlencode({"source": "container", "tail": _MOST_LOG_LINES})
        url = f"{self._api}/pods/{_quoted(pod)}/logs?{query}"
        try:
            content = self._http.tail(
                url, {"Accept": "text/event-stream"}, most=_MOST_LOG_BYTES, seconds=_SILENT_SECONDS
            )
        except RemoteError as error:
            raise _explained(error) from None
        # The last line may be cut.
        events = [line[5:] for line in content.split(b"\n")[:-1] if line.startswith(b"data:")]
        return b"".join(f"{json.loads(event)['line']}\n".encode() for event in events)

    @understood("RunPod")
    def pod_bill(self, pod: str, since: float, until: float) -> float:
        """USD billed for the pod between two Unix times, less credits. Credits above the charges are refused."""
        span = {"startTime": _rfc3339(since), "endTime": _rfc3339(until)}
        found = self._get("/billing/pods", podId=pod, bucketSize="hour", **span)
        lines = [usd_or_credit(one["totalAmount"]) for one in found["records"] if one["podId"] == pod]
        return usd(round(sum(lines), _USD_DIGITS))

    @understood("RunPod")
    def listed(self, path: str, name: str) -> list[Record]:
        """All pages of a list. The document knows no pages; a list that has pages names the next one in `next`."""
        page = self._get(path)
        found: list[Record] = list(page[name])
        for _ in range(_MOST_PAGES):
            if not (following := page.get("next")):
                return found
            page = self._get(path, cursor=following)
            found += page[name]
        raise ValueError(f"a list of more than {_MOST_PAGES} pages")

    def _get(self, path: str, **query: object) -> Any:
        return self._ask("GET", f"{path}?{urllib.parse.urlencode(query)}" if query else path)

    def send(self, method: str, path: str, fields: Mapping[str, Any]) -> Record:
        with understood("RunPod"):
            return record(self._ask(method, path, dict(fields)))

    def delete(self, path: str) -> None:
        try:
            self._ask("DELETE", path)
        except RemoteError as error:
            if error.status != 404:
                raise

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        try:
            return self._http.json(f"{self._api}{path}", body, method=method)
        except RemoteError as error:
            raise _explained(error) from None


class Records:
    """The account's records of one kind: templates, or serverless endpoints. Every method raises RemoteError."""

    def __init__(self, api: RunPod, kind: str, path: str, name: str) -> None:
        self.kind = kind
        self._api = api
        self._path = path
        self._name = name

    def all(self) -> list[Record]:
        return self._api.listed(self._path, self._name)

    def named(self, name: str) -> Record | None:
        """The record of this name. The platform appends ` -fb` to the name of an endpoint with fast boot."""
        return next((record for record in self.all() if record["name"].removesuffix(" -fb") == name), None)

    def create(self, fields: Mapping[str, Any]) -> Record:
        """Make a record of these fields of the kind's CreateRequest."""
        return self._api.send("POST", self._path, fields)

    def update(self, record_id: str, fields: Mapping[str, Any]) -> Record:
        """Change these fields of the record."""
        return self._api.send("PATCH", f"{self._path}/{_quoted(record_id)}", fields)

    def delete(self, record_id: str) -> None:
        """Delete the record, an endpoint with its workers and its template. A record that is gone is no error."""
        self._api.delete(f"{self._path}/{_quoted(record_id)}")


def _explained(error: RemoteError) -> RemoteError:
    """The error in the words of an operator."""
    if error.status == 401:
        return ApiError("RunPod does not accept the API key", error.status)
    if error.status == 0 or error.status == 429 or error.status >= 500:
        return error
    reason = error.detail or str(error)
    return ApiError(f"RunPod refused ({error.status}): {reason}", error.status, detail=error.detail)


def _quoted(name: str) -> str:
    return urllib.parse.quote(name, safe="")


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
