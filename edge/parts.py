"""Answers as text: a large one in parts, each made when the client has taken the part before.

Owns the size of the parts, and the memory that an answer counts while the client takes the answer. The text of a large
answer is not in memory as a whole; runtime/http_connection.py bounds what waits in a connection.
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
"""The memory for a byte of the message while its text is made at once: the values, the text, the socket's copy."""


class Parts:
    """Makes the HTTP answers of texts, and counts their memory."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def hold(self, request: Request, memory: int) -> None:
        """Count the memory of an answer whose text is not made yet. Raises OverloadedError."""
        caller: Caller = request.state.caller
        self._admission.hold_answer(caller, max(memory, _WHOLE * caller.answer_held if _is_old(request) else 0))

    async def made(
        self, request: Request, pieces: Iterable[bytes], kind: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        """The answer of a text whose pieces a thread makes, after hold()."""
        if _is_old(request):
            return Response(await asyncio.to_thread(b"".join, pieces), headers=headers, media_type=kind)
        return StreamingResponse(_parts(pieces), headers=headers, media_type=kind)

    def whole(self, request: Request, text: bytes, kind: str, headers: Mapping[str, str] | None = None) -> Response:
        """The answer of a text that is in memory, beside nothing else. Raises OverloadedError."""
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
