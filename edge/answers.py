"""The steps of a JSON request: expand, decode, call the gateway, encode.

Owns the order of these steps for every route, and that the memory of an answer counts from its arrival. The forms are
those of market_inference/contract/json_form, shared with the serverless worker.
"""

import asyncio
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, Final

import orjson
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response

from edge.admission import Admission
from edge.body import THREAD_BYTES
from edge.caller import Caller
from edge.config import Config
from edge.parts import PART_BYTES, Parts
from edge.upstream import Upstream
from market_inference.contract import metadata
from market_inference.contract.errors import RequestTooLargeError
from market_inference.contract.json_form import decode, encode, forms, options
from market_inference.contract.methods import METHODS, Method

JSON: Final = "application/json"
Expand = Callable[[forms.Body], tuple[dict[str, Any], forms.Names]]
# Fields beside the message, as in the serverless worker's input.
_BESIDE = frozenset({"timeout", "priority", "request_id"})


class Answers:
    """Answers JSON requests through the gateway."""

    def __init__(self, config: Config, upstream: Upstream, admission: Admission) -> None:
        self.parts = Parts(admission)
        self._admission = admission
        self._config = config
        self._upstream = upstream

    async def ask(self, name: str, expand: Expand, body: dict[str, Any], caller: Caller) -> Message:
        """The response to the JSON form of a request of the RPC `name`. Raises ServiceError, ClientGoneError."""
        seconds = self._beside(body, caller)
        own = {key: value for key, value in body.items() if key not in _BESIDE}
        method = METHODS[name]
        if caller.bytes_in > THREAD_BYTES:
            full, caller.names = await asyncio.to_thread(expand, own)
            message = await asyncio.to_thread(decode.message, method.request, full)
        else:
            full, caller.names = expand(own)
            message = decode.message(method.request, full)
        return await self.send(method, message, caller, seconds)

    async def send(self, method: Method, message: Message, caller: Caller, seconds: float | None = None) -> Message:
        """The response to a message, counted in bytes as the caller's answer. Raises ServiceError, ClientGoneError."""
        size = message.ByteSize()
        if size > method.max_request_bytes:
            raise RequestTooLargeError(method.max_request_bytes, size)
        timeout = self._config.default_timeout if seconds is None else seconds
        timeout = min(timeout, self._config.max_timeout)
        response = await self._upstream.call_until_gone(method, message, caller, timeout)
        self._admission.hold_answer(caller, response.ByteSize())
        return response

    async def json(
        self,
        request: Request,
        response: Message,
        headers: Mapping[str, str] | None = None,
        notes: Mapping[str, list[str]] | None = None,
    ) -> Response:
        """The response as JSON, with fields named as in the .proto file. Raises OverloadedError.

        `notes`: those of the reader of a table by symbol, in a field beside the message's.
        """
        caller: Caller = request.state.caller
        beside = {"notes": notes} if notes else {}
        if caller.answer_held <= THREAD_BYTES:
            text = orjson.dumps(beside | encode.to_json(response, caller.names))
            return self.parts.whole(request, text, JSON, headers)
        self.parts.hold(request, caller.answer_held + 4 * PART_BYTES)
        pieces = encode.texts(response, caller.names, orjson.dumps)
        if beside:
            pieces = chain([orjson.dumps(beside)[:-1] + b"," + next(pieces)[1:]], pieces)
        return await self.parts.made(request, pieces, JSON, headers)

    def _beside(self, body: dict[str, Any], caller: Caller) -> float:
        """Note the body's fields beside the message; returns the timeout in seconds."""
        if body.get("priority") is not None:
            caller.priority = options.priority(body["priority"])
        if body.get("request_id") is not None:
            caller.request_id = metadata.request_id(body["request_id"], caller.request_id)
        return options.timeout(body.get("timeout"), self._config.default_timeout)
