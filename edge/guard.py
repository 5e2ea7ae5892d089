"""Around every request: the caller, the origin, the limits, the headers of security, the log line, metrics and span.

Owns that a failure of any kind has an answer, and that no body, text, series or key reaches a log. An ASGI middleware
of our own, since Starlette's would read a streamed body twice.
"""

import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge import caller as callers
from edge import problem
from edge.admission import Admission
from edge.caller import Caller
from edge.config import Config
from edge.errors import ClientGoneError, ForeignOriginError
from edge.metrics import Metrics
from market_inference.contract import deadline, metadata
from market_inference.contract.errors import (
    InternalError,
    InvalidRequestError,
    ServiceError,
    StalledReaderError,
    UnauthenticatedError,
    Violation,
    code_name,
    reason_of,
)
from market_inference.errors import ArgumentError
from runtime import logs
from runtime.logs import fields
from runtime.tracing import Span, Traces
from runtime.turns import Turns

log = logging.getLogger("edge.request")

# The page loads nothing from elsewhere and runs no inline script; chart colours are inline styles.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", POLICY.encode()),
)
_OPEN_PATHS: Final = ("/health/",)
# nginx introduced it: the client closed the connection before the answer.
GONE: Final = 499


class Guard:
    """Around the whole application."""

    def __init__(
        self,
        app: ASGIApp,
        config: Config,
        admission: Admission,
        metrics: Metrics,
        traces: Traces | None,
        own_key: str,
    ) -> None:
        self._app = app
        self._config = config
        self._admission = admission
        self._metrics = metrics
        self._traces = traces
        self._own_key = own_key
        self._turns = Turns()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        began = deadline.now()
        caller = callers.read(scope["headers"], self._own_key)
        if scope["type"] == "http":
            caller.receive = receive
        scope.setdefault("state", {})["caller"] = caller
        span = self._begin(scope, caller, began)
        answer = _Answer(send, caller, scope["type"], self._admission)
        try:
            await self._serve(scope, receive, answer, caller)
        finally:
            self._admission.release(caller)
            self._admission.release_answer(caller)
            self._finish(scope, caller, answer, began, span)

    async def _serve(self, scope: Scope, receive: Receive, answer: "_Answer", caller: Caller) -> None:
        open_ = scope["path"].startswith(_OPEN_PATHS)
        # Live sessions have a limit of their own.
        counted = not (open_ or scope["path"].startswith("/v1/watch"))
        try:
            # A WebSocket's opening has limits of its own, and no connection that could give its turn back.
            if scope["type"] == "http" and not open_:
                await self._turn(scope, caller)
            self._check_origin(scope)
            if caller.several:
                raise UnauthenticatedError(metadata.SEVERAL_CREDENTIALS)
            place = self._admission.place(caller) if counted else contextlib.nullcontext()
            with place:
                await self._app(scope, receive, answer)
                await self._taken(scope, caller)
        except ClientGoneError:
            answer.status = GONE
        except Exception as error:  # noqa: BLE001 -- the answer to a bug is the bug's request id
            await self._refuse(error, scope, receive, answer, caller)

    async def _turn(self, scope: Scope, caller: Caller) -> None:
        """Return when the request may begin. Raises ClientGoneError."""
        if not await self._turns.begin(self._admission.in_turn(caller, scope["client"]), scope["state"]):
            raise ClientGoneError

    async def _taken(self, scope: Scope, caller: Caller) -> None:
        """Return when the client has taken the answer, or is gone: until then the request keeps place and memory."""
        taken: Callable[[], Awaitable[bool]] | None = scope["state"].get("taken")  # absent for WebSockets
        if taken is not None and await taken() and not caller.reason:
            error = StalledReaderError(f"nothing of the answer was read for {self._config.reader_seconds:g} s")
            note(caller, error.status(caller.request_id))

    async def _refuse(
        self, error: Exception, scope: Scope, receive: Receive, answer: "_Answer", caller: Caller
    ) -> None:
        if not isinstance(error, ServiceError):
            log.error("bug", exc_info=error, extra=fields(request_id=caller.request_id, path=scope["path"]))
            error = InternalError()
        if not answer.started:
            await refusal(error, caller)(scope, receive, answer)

    def _check_origin(self, scope: Scope) -> None:
        """Raises ForeignOriginError."""
        found = _headers(scope, b"origin", b"host")
        origin = found.get(b"origin", "")
        if origin and callers.is_foreign(origin, found.get(b"host", ""), self._config.origins):
            raise ForeignOriginError(
                "pages of other sites may not call this edge: its operator can allow an origin with "
                "MARKET_EDGE_CORS_ORIGINS"
            )

    def _begin(self, scope: Scope, caller: Caller, began: float) -> Span | None:
        if self._traces is None:
            return None
        method = scope.get("method", "GET")
        attributes = {"http.request.method": method, "market.request_id": caller.request_id}
        span = self._traces.request(f"HTTP {method}", "server", caller.traceparent, began, attributes)
        caller.traceparent = span.traceparent
        return span

    def _finish(self, scope: Scope, caller: Caller, answer: "_Answer", began: float, span: Span | None) -> None:
        route, now = route_of(scope), deadline.now()
        seconds = now - began
        if span is not None:
            attributes: Mapping[str, Any] = {"http.route": route, "http.response.status_code": answer.status}
            span.end(caller.code, caller.reason, now, attributes)
        self._metrics.answered(route, answer.status, caller.reason, seconds, caller.bytes_in)
        values: dict[str, object] = {
            "request_id": caller.request_id,
            "trace_id": caller.traceparent[3:35],
            "route": route,
            "method": scope.get("method", scope["type"]),
            "status": answer.status,
            "code": caller.code,
            "reason": caller.reason,
            "bytes": caller.bytes_in,
            "answer_bytes": answer.size,
            "seconds": int(seconds * 1e6) / 1e6,
        }
        level = logging.ERROR if answer.status == 500 else logging.WARNING if answer.status > 500 else logging.INFO
        if scope["path"].startswith(_OPEN_PATHS) and answer.status < 500:
            level = logging.DEBUG
        logs.event(log, level, "request", values)


class _Answer:
    """Sends on, notes status and size, and adds the headers of every answer."""

    def __init__(self, send: Send, caller: Caller, kind: str, admission: Admission) -> None:
        self._send = send
        self._admission = admission
        self._caller = caller
        self.started = False
        self.status = 101 if kind == "websocket" else 0
        self.size = 0

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start"):
            self.started = True
            self.status = message["status"]
            # The body, and the values read from the body, are in memory no longer.
            self._admission.release(self._caller)
            own = (*_HEADERS, (b"x-request-id", self._caller.request_id.encode()))
            message = {**message, "headers": [*message["headers"], *own]}
        elif kind == "http.response.body":
            self.size += len(message.get("body", b""))
        elif kind in ("websocket.accept", "websocket.close"):
            self.started = True
        elif kind == "websocket.send":
            self.size += len(message.get("text") or "")
        await self._send(message)


def refusal(error: ServiceError, caller: Caller, extra: Mapping[str, Any] | None = None) -> Any:
    """The answer for an error, noted for the log."""
    status = error.status(caller.request_id)
    note(caller, status)
    return problem.response(error, caller.request_id, caller.names, extra)


def translated(error: Exception, caller: Caller) -> ServiceError:
    """The error for callers. A bug has no details here; the log holds the details under the request id."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, ArgumentError):
        return InvalidRequestError([Violation(field, text, "json") for field, text in error.violations])
    log.error("bug", exc_info=error, extra=fields(request_id=caller.request_id))
    return InternalError()


def note(caller: Caller, status: Any) -> None:
    """Note a failure for log line, metrics and span."""
    caller.reason = reason_of(status)
    caller.code = code_name(status.code)


def route_of(scope: Scope) -> str:
    """The template of the route, "other" where no route has the path: paths are chosen by callers."""
    return str(getattr(scope.get("route"), "path", "other"))


def _headers(scope: Scope, *names: bytes) -> dict[bytes, str]:
    return {name: value.decode("latin-1") for name, value in scope["headers"] if name in names}
