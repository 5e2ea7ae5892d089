"""Around every request: the request id, the bound on bodies, and one log line.

Owns that no path with a token and no body reaches a log. An ASGI middleware of our own, since Starlette's would read a
streamed body twice.
"""

import logging
import re
import time
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.logs import fields
from training.plane import problem
from training.plane.errors import TooLargeError

log = logging.getLogger("training.requests")

MOST_BODY_BYTES = 2 << 20
_REQUEST_ID = re.compile(r"[\w.:-]{1,100}")
_SECRET_PATH = re.compile(r"(/api/training/download/)[^/]+")


class Guard:
    """Around the whole application. /objects has bounds of its own, by signature."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        asked = headers.get("x-request-id", "")
        request_id = asked if _REQUEST_ID.fullmatch(asked) else str(uuid.uuid4())
        scope.setdefault("state", {})["request_id"] = request_id
        answer = _Answer(send, request_id)
        began = time.monotonic()
        bounded = receive if scope["path"].startswith("/objects/") else _bounded(receive)
        size = headers.get("content-length", "0")
        if bounded is not receive and size.isdigit() and int(size) > MOST_BODY_BYTES:
            refusal = problem.response(TooLargeError.over("body", MOST_BODY_BYTES, int(size)), request_id)
            await refusal(scope, receive, answer)
        else:
            await self._app(scope, bounded, answer)
        log.info(
            "request",
            extra=fields(
                method=scope["method"],
                path=_SECRET_PATH.sub(r"\1-", scope["path"]),
                status=answer.status,
                seconds=round(time.monotonic() - began, 4),
                request_id=request_id,
            ),
        )


class _Answer:
    """Sends on, notes the status and adds the request id."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message["headers"], (b"x-request-id", self._request_id.encode())]}
        await self._send(message)


def _bounded(receive: Receive) -> Receive:
    """As `receive`; raises TooLargeError once more bytes came than a body may have, also without Content-Length."""
    got = 0

    async def bounded() -> Message:
        nonlocal got
        message = await receive()
        got += len(message.get("body", b""))
        if got > MOST_BODY_BYTES:
            raise TooLargeError.over("body", MOST_BODY_BYTES, got)
        return message

    return bounded
