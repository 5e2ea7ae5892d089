"""Around every request: its turn, the request id, the bounds on bodies and on unread answers, and one log line.

Owns that no path with a token and no body reaches a log. An ASGI middleware of our own, since Starlette's would read a
streamed body twice.
"""

import asyncio
import hashlib
import logging
import re
import time
import uuid
from collections import Counter, OrderedDict
from dataclasses import dataclass
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from market_inference.contract.keys import FORM
from runtime.logs import fields
from runtime.turns import Turns
from training.plane import problem
from training.plane.errors import OverloadedError, SlowBodyError, TooLargeError, Violation
from training.plane.objects import ObjectMissingError

log = logging.getLogger("training.requests")

MOST_BODY_BYTES = 2 << 20
MOST_BODIES_BYTES = 64 << 20
"""Bytes of all bodies in memory; the first SPARED_BYTES of a body are never refused, a recipe for one."""
SPARED_BYTES = 64 << 10
MOST_VALUES = 16_384
"""Opening braces, opening brackets and commas of a body: the application parses JSON in the event loop, and before it
knows the caller. A machine's log is no JSON, and may have any number."""
MOST_UNREAD_BYTES = 32 << 20
"""Bytes of the answers to one owner that wait for their readers; an answer of SPARED_BYTES is never refused."""
MOST_KNOWN = 4096
"""Credentials of the last callers that were accepted. Callers with others take turns by their addresses."""
BODY_SECONDS = 30.0
"""The time for a body; for an upload to /objects, between two of its pieces."""
_REQUEST_ID = re.compile(r"[\w.:-]{1,100}")
_LOG_PATH = re.compile(r"/api/training/jobs/[^/]+/log")
_SECRET = re.compile(rf"(?<=/download/)[^/]+|(?<=/){FORM}_[^/]*|[^/]{{41,}}")
"""In a path, whether a route has the path or not: tokens, API keys, and whatever is as long as these."""


class Guard:
    """Around the whole application. /objects has bounds of bytes of its own, by signature."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._bodies = _Bodies()
        self._unread: Counter[str] = Counter()
        self._turns = Turns()
        self._owners: OrderedDict[bytes, str] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        asked = headers.get("x-request-id", "")
        request_id = asked if _REQUEST_ID.fullmatch(asked) else str(uuid.uuid4())
        state = scope.setdefault("state", {})
        credential = hashlib.sha256(f"{headers.get('authorization')} {headers.get('x-api-key')}".encode()).digest()
        client = self._owners.get(credential) or (scope["client"][0] if scope.get("client") else "")
        state |= {"request_id": request_id, "client": client}
        if not await self._turns.begin(client, state):
            return
        answer = _Answer(scope, receive, send, self._unread)
        began = time.monotonic()
        is_upload = scope["path"].startswith("/objects/")
        held = _Held(self._bodies, parsed=_LOG_PATH.fullmatch(scope["path"]) is None)
        timed = _timed(receive, None if is_upload else held)
        size = headers.get("content-length", "0")
        if not is_upload and size.isdigit() and int(size) > MOST_BODY_BYTES:
            refusal = problem.response(TooLargeError.over("body", MOST_BODY_BYTES, int(size)), request_id)
            await refusal(scope, receive, answer)
        else:
            try:
                await self._app(scope, timed, answer)
            except RuntimeError as error:  # Starlette's, for an error after the answer's begin
                if not isinstance(error.__cause__, ObjectMissingError):  # deleted under the download: no bug
                    raise
            finally:
                self._bodies.size -= held.size
                if answer.status == HTTPStatus.UNAUTHORIZED:
                    self._owners.pop(credential, None)
                elif state.get("owner"):
                    self._owners[credential] = state["owner"]
                    self._owners.move_to_end(credential)
                    if len(self._owners) > MOST_KNOWN:
                        self._owners.popitem(last=False)
        log.info(
            "request",
            extra=fields(
                method=scope["method"],
                path=_SECRET.sub("-", scope["path"]),
                status=answer.status,
                seconds=round(time.monotonic() - began, 4),
                request_id=request_id,
            ),
        )


class _Answer:
    """Sends on, notes the status and adds the request id.

    The server sends a large answer in pieces, as the client reads (runtime/http_connection.py), and all of the answer
    stays in memory until the last piece. `unread`: the bytes of such answers by owner.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, unread: Counter[str]) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._unread = unread
        self._start: list[Message] = []
        self.status = 0

    async def __call__(self, message: Message) -> None:
        state = self._scope["state"]
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message["headers"], (b"x-request-id", state["request_id"].encode())]
            self._start = [{**message, "headers": headers}]  # sent with the first bytes: these may be refused
            return
        body, owner = message.get("body", b""), state.get("owner", "")
        size = len(body) if len(body) > SPARED_BYTES else 0
        full = 0 < self._unread[owner] > MOST_UNREAD_BYTES - size
        if size and full and self._start and not message.get("more_body"):
            why = f"answers of more than {MOST_UNREAD_BYTES} bytes wait for their readers"
            refusal = problem.response(OverloadedError(why, retry_after=5.0), state["request_id"])
            await refusal(self._scope, self._receive, self)
            return
        self._unread[owner] += size
        try:
            while self._start:
                await self._send(self._start.pop())
            await self._send(message)
        finally:
            self._unread -= Counter({owner: size})


class _Bodies:
    """The bytes of all bodies in memory."""

    size = 0


@dataclass(slots=True)
class _Held:
    """The bytes of one body, and its values if the application parses the body."""

    bodies: _Bodies
    parsed: bool
    size: int = 0
    values: int = 0

    def add(self, part: bytes) -> None:
        """Raises TooLargeError, OverloadedError."""
        self.size += len(part)
        self.bodies.size += len(part)
        self.values += sum(map(part.count, (b"{", b"[", b","))) if self.parsed else 0
        if self.size > MOST_BODY_BYTES:
            raise TooLargeError.over("body", MOST_BODY_BYTES, self.size)
        if self.values > MOST_VALUES:
            text = f"at most {MOST_VALUES}, got {self.values}"
            raise TooLargeError(f"values of the body: {text}", Violation("body", text, MOST_VALUES))
        if self.size > SPARED_BYTES and self.bodies.size > MOST_BODIES_BYTES:
            raise OverloadedError(f"bodies of more than {MOST_BODIES_BYTES} bytes are in memory", retry_after=5.0)


def _timed(receive: Receive, held: _Held | None) -> Receive:
    """As `receive`; raises SlowBodyError when the body is not complete in time: without `held`, its next piece.

    `held` raises TooLargeError once more bytes came than a body may have, also without Content-Length, OverloadedError
    above the bytes of all bodies: the application reads bodies before it knows the caller, and strangers could hold
    every connection and all memory.
    """
    ends: float | None = None
    complete = False

    async def timed() -> Message:
        nonlocal ends, complete
        if complete:  # what comes next is the client's departure
            return await receive()
        if ends is None or held is None:
            ends = time.monotonic() + BODY_SECONDS
        try:
            async with asyncio.timeout(ends - time.monotonic()):
                message = await receive()
        except TimeoutError:
            raise SlowBodyError(f"the body did not arrive within {BODY_SECONDS:g} s") from None
        complete = not message.get("more_body", False)
        if held is not None:
            held.add(message.get("body", b""))
        return message

    return timed
