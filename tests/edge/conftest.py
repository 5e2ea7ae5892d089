"""A real pair with a real HTTP edge before it."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest

import market_inference
from tests.patience import patient


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)


@dataclass
class Edge:
    """An edge by its URL."""

    url: str
    key: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, **headers: str) -> Answer:
        return self._send(urllib.request.Request(self.url + path, headers=self._headers(headers)))  # noqa: S310

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = {} if "content_type" in headers else {"content-type": "application/json"}
        sent = self._headers({**kind, **headers})
        return self._send(urllib.request.Request(self.url + path, data, sent, method="POST"))  # noqa: S310

    def _headers(self, given: dict[str, str]) -> dict[str, str]:
        own = {"authorization": f"Bearer {self.key}"} if self.key else {}
        return own | {name.replace("_", "-"): value for name, value in given.items()}

    @staticmethod
    def _send(request: urllib.request.Request) -> Answer:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 -- our own URL
                return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read())


@pytest.fixture(scope="session")
def pair(tmp_path_factory) -> Iterator[market_inference.Pair]:
    pair = market_inference.Pair(state=tmp_path_factory.mktemp("edge"), http_listen="127.0.0.1:0")
    with patient():
        pair.start()
    with closing(pair):
        models = pair.wait_loaded()
        assert all(model.state == "ready" for model in models), models
        yield pair


@pytest.fixture(scope="session")
def edge(pair) -> Edge:
    """The edge with a key."""
    return Edge(pair.http, pair.key)
