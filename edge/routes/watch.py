"""Live sessions: POST /v1/watch answers as server-sent events, GET /v1/watch is a WebSocket.

Owns the two transports of edge/watch.py. A body of one JSON object brings its bars with it; a body of lines (NDJSON)
may go on as long as the client likes, one bar on each line after the opening. A session counts before the opening is
read, and the opening has the time of a request's body.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import AbstractContextManager, ExitStack, aclosing
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import orjson
from fastapi import APIRouter, Request, WebSocket, WebSocketDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edge import body as bodies
from edge import guard, problem, schema, watch
from edge.admission import Admission, Held
from edge.body import Bodies
from edge.caller import Caller, bearer
from edge.config import Config
from edge.errors import BodyTooSlowError, ClientGoneError
from edge.metrics import Metrics
from edge.upstream import Upstream
from edge.watch import Opening
from market_inference.contract import metadata
from market_inference.contract.errors import (
    CallCancelledError,
    InternalError,
    OverloadedError,
    RemoteError,
    RequestTooLargeError,
    ServiceError,
    StalledReaderError,
    UnauthenticatedError,
    reason_of,
)
from market_inference.contract.json_form.forms import invalid
from market_inference.errors import ArgumentError, MarketInferenceError

EVENTS: Final = "text/event-stream"
LINES: Final = ("application/x-ndjson", "application/jsonl", "application/json-lines")
_STRANGER_WEIGHT: Final = 4 << 20
"""The most memory of the values in an opening without a key in the headers: 10,000 bars of six columns take half."""
_POLICY_VIOLATION, _INTERNAL_ERROR, _TRY_AGAIN_LATER = 1008, 1011, 1013


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Opened:
    """An opening of `size` bytes in memory, and every bar of the session. `complete`: the body has been read."""

    found: Opening
    bars: AsyncIterator[Any]
    size: int
    complete: bool


class Watches:
    """Opens sessions, and carries them over the two transports."""

    def __init__(
        self, config: Config, upstream: Upstream, admission: Admission, metrics: Metrics, reader: Bodies
    ) -> None:
        self._config = config
        self._upstream = upstream
        self._admission = admission
        self._metrics = metrics
        self._reader = reader

    async def events(self, request: Request) -> Response:
        """Server-sent events for a body of JSON or of lines."""
        return _Events(self, request)

    def held(self, caller: Caller) -> Held:
        """The memory of the caller's session."""
        return self._admission.replays.of(caller.credential)

    async def place(self, caller: Caller) -> AbstractContextManager[None]:
        """A place for the session of a caller with a key that the gateway knows. Raises ServiceError."""
        await self._admission.check(caller)
        return self._admission.watches.held(caller.credential)

    async def opened(self, request: Request, held: Held) -> "_Opened":
        """Read the opening of a body of JSON or of lines. Raises ServiceError, ArgumentError, ClientGoneError."""
        caller: Caller = request.state.caller
        if bodies.media_type(request) in LINES:
            lines = self._reader.lines(request, held)
            first = await self._in_time(anext(lines, b""))
            found = watch.opening(await bodies.loaded(first) if first else None, caller)
            size = len(first) + bodies.weight(first)
            return _Opened(found, _followed(found, _parsed(lines)), size, complete=False)
        found = watch.opening(await self._reader.parse(await self._reader.read(request), caller), caller)
        size = caller.bytes_held
        self._admission.release(caller)
        return _Opened(found, watch.paced(found), size, complete=True)

    async def _in_time(self, opening: Awaitable[_T]) -> _T:
        """The opening, or BodyTooSlowError."""
        try:
            async with asyncio.timeout(self._config.body_seconds):
                return await opening
        except TimeoutError:
            raise BodyTooSlowError(f"no opening came within {self._config.body_seconds:g} s") from None

    async def socket(self, socket: WebSocket) -> None:
        """A session over a WebSocket: the first message opens, every other one is a bar."""
        caller: Caller = socket.state.caller
        with ExitStack() as place:
            # A refusal before the accept is an HTTP answer.
            known = bool(caller.credential)
            place.enter_context(await self.place(caller) if known else self._admission.strangers.held(""))
            try:
                await socket.accept(headers=[(metadata.REQUEST_ID.encode(), caller.request_id.encode())])
                await self._carry(socket, caller, place)
                await socket.close()
            except (WebSocketDisconnect, ClientGoneError):
                return
            except Exception as error:  # noqa: BLE001 -- a bug, too, ends with a message that names the request id
                await _end(socket, guard.translated(error, caller), caller)

    async def _carry(self, socket: WebSocket, caller: Caller, place: ExitStack) -> None:
        """The session. With a key that comes in the first message, `place` changes to that of the key's client."""
        raw = (await self._in_time(_text(socket))).encode()
        weight = bodies.weight(raw)
        if not caller.credential and weight > _STRANGER_WEIGHT:
            raise RequestTooLargeError(_STRANGER_WEIGHT, weight)
        with self._admission.bytes.held(caller.credential, weight):
            first = await bodies.loaded(raw)
            body = first.get("open", first) if isinstance(first, dict) else first
            if body is not first and (more := sorted(first.keys() - {"open", "api_key"})):
                raise invalid(more[0], "stands beside `open`: send it in `open`, or in a message of its own")
            before = caller.credential
            for key in filter(None, (_key_in(first), _key_in(body))):
                if caller.credential and not caller.own and bearer(key) != bearer(caller.key):
                    raise UnauthenticatedError(metadata.SEVERAL_CREDENTIALS)
                caller.credential, caller.own = bearer(key), False
            await self._admission.check(caller)
            if caller.credential != before:
                place.close()
                place.enter_context(await self.place(caller))
            found = watch.opening(body, caller)
        held = place.enter_context(self.held(caller))
        opened = _Opened(found, _followed(found, _messages(socket, held)), len(raw) + weight, complete=True)
        async with aclosing(self.run(opened, caller, held)) as messages:
            async for message in messages:
                await self.within_time(socket.send_text(orjson.dumps(message).decode()))

    async def run(self, opened: "_Opened", caller: Caller, held: Held) -> AsyncGenerator[Any, None]:
        """The messages of a session. Raises ServiceError, ArgumentError."""
        found = opened.found
        held.set(line=0, opening=opened.size if found.bars else 0)
        try:
            async with self._upstream.watch(found.record, caller, latest=found.latest) as session:
                yield watch.opened(caller)
                async with aclosing(watch.updates(session, opened.bars, caller)) as messages:
                    async for message in messages:
                        self._metrics.updates.inc()
                        yield message
        except ArgumentError:
            raise
        except MarketInferenceError as refused:
            raise RemoteError(watch.status_of(refused)) from None

    async def within_time(self, sending: Any) -> None:
        """Send, or raise StalledReaderError."""
        try:
            async with asyncio.timeout(self._config.reader_seconds):
                await sending
        except TimeoutError:
            raise StalledReaderError(
                f"no update was read for {self._config.reader_seconds:g} s; read faster, or open with delivery latest"
            ) from None


def router(watches: Watches) -> APIRouter:
    """The two routes."""
    made = APIRouter(tags=["live"], default_response_class=Response)
    made.add_api_route(
        "/v1/watch",
        watches.events,
        methods=["POST"],
        summary="A live session: bars in, fresh indicators and forecasts out, as server-sent events",
        operation_id="watch",
        openapi_extra=schema.watch_operation(),
        responses={200: {"description": "updates", "content": {EVENTS: {}}}, **schema.problems()},
    )
    made.add_api_websocket_route("/v1/watch", watches.socket)
    return made


class _Events(Response):
    """Server-sent events: `opened`, an `update` for each bar, then `end` or `error`."""

    def __init__(self, watches: Watches, request: Request) -> None:
        super().__init__()
        self._watches = watches
        self._request = request
        self._caller: Caller = request.state.caller
        self._began = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with await self._watches.place(self._caller), self._watches.held(self._caller) as held:
                opened = await self._watches.opened(self._request, held)
                await self._carry(opened, held, scope, receive, send)
        except ClientGoneError:
            if not self._began:
                raise
            # The answer has its status; log line, metrics and span have the reason.
            self._caller.code = self._caller.reason = CallCancelledError.reason

    async def _carry(self, opened: "_Opened", held: Held, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._watches.run(opened, self._caller, held)) as messages:
            sending = asyncio.create_task(self._send_all(messages, scope, receive, send))
            # uvicorn does not raise when the client is gone, so the connection is watched meanwhile. While a body of
            # lines arrives, its reader notices.
            watching = asyncio.create_task(self._caller.departed()) if opened.complete else None
            try:
                tasks = {sending} if watching is None else {sending, watching}
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if not sending.done():
                    raise ClientGoneError
                sending.result()
            finally:
                for task in (sending, watching):
                    if task is not None:
                        task.cancel()
                        await asyncio.wait({task})

    async def _send_all(self, messages: AsyncGenerator[Any, None], scope: Scope, receive: Receive, send: Send) -> None:
        # The first message says whether the session opened: before it, a failure is an HTTP error.
        try:
            first = await anext(messages)
        except (ServiceError, ArgumentError) as error:
            await guard.refusal(guard.translated(error, self._caller), self._caller)(scope, receive, send)
            return
        head = [(b"content-type", EVENTS.encode()), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
        self._began = True
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await self._event(send, "opened", first["opened"])
        try:
            async for message in messages:
                await self._event(send, "update", message)
            await self._event(send, "end", {})
        except (ServiceError, ArgumentError) as error:
            status = guard.translated(error, self._caller).status(self._caller.request_id)
            guard.note(self._caller, status)
            if not isinstance(error, StalledReaderError):
                await self._event(send, "error", problem.document(status, self._caller.names))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _event(self, send: Send, name: str, data: Any) -> None:
        raw = b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps(data))
        await self._watches.within_time(send({"type": "http.response.body", "body": raw, "more_body": True}))


async def _parsed(lines: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for line in lines:
        yield await bodies.loaded(line)


async def _followed(found: Opening, further: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The bars of the opening, then the further ones."""
    async for bar in watch.paced(found):
        yield bar
    async for bar in further:
        yield bar


async def _messages(socket: WebSocket, held: Held) -> AsyncIterator[Any]:
    """The bars of the socket's messages until `finish`."""
    while True:
        raw = (await _text(socket)).encode()
        held.set(line=len(raw) + bodies.weight(raw))
        message = await bodies.loaded(raw)
        if isinstance(message, dict) and "finish" in message:
            if message["finish"] is not True or len(message) > 1:
                raise invalid("finish", "must be true, and the only field of a message")
            return
        yield message


async def _text(socket: WebSocket) -> str:
    """The next message. Raises InvalidRequestError, WebSocketDisconnect."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    text: str | None = message.get("text")
    if text is None:
        raise invalid("", "a message must be text, not binary")
    return text


def _key_in(body: Any) -> str:
    key = body.get("api_key") if isinstance(body, dict) else None
    return key if isinstance(key, str) else ""


async def _end(socket: WebSocket, error: ServiceError, caller: Caller) -> None:
    """Tell the error and close."""
    status = error.status(caller.request_id)
    guard.note(caller, status)
    code = _POLICY_VIOLATION
    if isinstance(error, InternalError):
        code = _INTERNAL_ERROR
    elif reason_of(status) == OverloadedError.reason:
        code = _TRY_AGAIN_LATER
    if not isinstance(error, StalledReaderError):
        message = {"error": problem.document(status, caller.names)}
        await socket.send_text(orjson.dumps(message).decode())
    await socket.close(code, reason_of(status)[:120])
