"""Answers as text: a large answer in parts, and no part is made before the client has taken the part before.

Owns the size of the parts, and the count of an answer's memory while the client takes the answer. The text of a large
answer is never in memory as a whole; runtime/http_connection.py bounds the waiting bytes of a connection.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from edge.admission import Admission
from edge.caller import Caller

PART_BYTES: Final = 256 << 10
_WHOLE: Final = 16
"""The memory for a byte of the message while the whole text is made: the values, the text, the socket's copy."""


class Parts:
    """Makes the HTTP answers of texts, and counts their memory."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def hold(self, request: Request, memory: int) -> None:
        """Count the memory of an answer before the text is made. Raises OverloadedError."""
        caller: Caller = request.state.caller
        self._admission.hold_answer(caller, max(memory, _WHOLE * caller.answer_held if _is_old(request) else 0))

    async def made(
        self, request: Request, pieces: Iterable[bytes], kind: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        """The answer of a text in pieces, made by a thread. Call hold() before."""
        if _is_old(request):
            return Response(await asyncio.to_thread(b"".join, pieces), headers=headers, media_type=kind)
        return StreamingResponse(_parts(pieces), headers=headers, media_type=kind)

    def whole(self, request: Request, text: bytes, kind: str, headers: Mapping[str, str] | None = None) -> Response:
        """The answer of a text in memory; only the text counts from now on. Raises OverloadedError."""
        self._admission.hold_answer(request.state.caller, len(text))
        return Response(text, headers=headers, media_type=kind)


def _is_old(request: Request) -> bool:
    """HTTP/1.0 has no answers of unknown length."""
    return bool(request.scope["http_version"] == "1.0")


def _parts(pieces: Iterable[bytes]) -> Iterator[bytes]:
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= PART_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)
