"""The body of a request: bounded in bytes and in time, before anything is parsed.

Owns reading and the media type. JSON becomes Python values here; tables belong to tables/.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import orjson
from starlette.requests import ClientDisconnect, Request

from edge.admission import MESSAGE_BYTES, Admission, Held
from edge.caller import Caller
from edge.config import Config
from edge.errors import BodyTooSlowError, ClientGoneError, TableTooLargeError
from market_inference.contract.errors import RequestTooLargeError
from market_inference.contract.json_form.forms import invalid

if TYPE_CHECKING:
    from edge.tables.size import Size

# Longer bodies, and larger answers, are converted in a thread: it would hold the event loop for milliseconds.
THREAD_BYTES: Final = 256 << 10
TABLE_SHARE: Final = 7 / 16
"""The share of all bytes in work that one table may take, with its body: two tables are read at once, beside others."""
_PART: Final = 256 << 10
# Below, bytes.count() is faster.
_FEW: Final = 8 << 10
_NO_NUMBER: Final = re.compile(r"\b(NaN|nan|Infinity|inf)\b")
# Characters around a mistake, and at the beginning of a body, that are looked at.
_AROUND: Final = 9
_FIRST: Final = 64
_T = TypeVar("_T")


class Bodies:
    """Reads bodies under the limits of the configuration."""

    def __init__(self, config: Config, admission: Admission) -> None:
        # A client with a body above its share would try again for ever.
        self._most = min(config.max_body_bytes, admission.bytes.each)
        self._seconds = config.body_seconds
        self._admission = admission

    async def read(self, request: Request) -> bytes:
        """The whole body. Raises ServiceError, ClientGoneError."""
        caller: Caller = request.state.caller
        await self._admission.check(caller)
        length = request.headers.get("content-length", "")
        if length.isdecimal():
            self._check(int(length))
        parts = []
        try:
            async with asyncio.timeout(self._seconds):
                async for part in request.stream():
                    caller.bytes_in += len(part)
                    self._check(caller.bytes_in)
                    self._admission.bytes.add(caller.credential, len(part))
                    caller.bytes_held += len(part)
                    parts.append(part)
        except TimeoutError:
            raise BodyTooSlowError(f"the body did not arrive within {self._seconds:g} s") from None
        except ClientDisconnect:
            raise ClientGoneError from None
        return await asyncio.to_thread(b"".join, parts) if caller.bytes_in > THREAD_BYTES else b"".join(parts)

    async def parse(self, raw: bytes, caller: Caller) -> dict[str, Any]:
        """A body as a JSON object, whose memory is held as that of the body is. Raises ServiceError."""
        self.hold(await apart(weight, raw), caller)
        found = await loaded(raw)
        if not isinstance(found, dict):
            raise invalid("", "the body must be a JSON object")
        return found

    async def lines(self, request: Request, held: Held) -> AsyncIterator[bytes]:
        """The lines of a body of any length as they arrive; each line is bounded. Raises as read().

        `held` counts the beginning of a line, and a line with its values until the next one is asked for.
        """
        caller: Caller = request.state.caller
        await self._admission.check(caller)
        waiting = bytearray()
        try:
            async for part in request.stream():
                caller.bytes_in += len(part)
                begun, at = len(waiting), 0
                waiting += part
                # Line by line: a part of line ends would be a hundred times as large as a list.
                while (end := waiting.find(b"\n", max(begun, at))) >= 0:
                    line = bytes(waiting[at:end])
                    at = end + 1
                    if line.strip():
                        held.set(line=len(line) + weight(line), waiting=0)
                        yield line
                del waiting[:at]
                if len(waiting) > MESSAGE_BYTES:
                    raise RequestTooLargeError(MESSAGE_BYTES, len(waiting))
                held.set(line=0, waiting=len(waiting))
        except ClientDisconnect:
            raise ClientGoneError from None
        if waiting.strip():
            held.set(line=weight(waiting))
            yield bytes(waiting)

    def hold(self, size: int, caller: Caller) -> None:
        """Count memory beside the body's until the end of the request. Raises RequestTooLargeError, OverloadedError."""
        if caller.bytes_held + size > (most := self._admission.bytes.each):
            raise RequestTooLargeError(most, caller.bytes_held + size)
        self._admission.bytes.add(caller.credential, size)
        caller.bytes_held += size

    def hold_table(self, size: "Size", caller: Caller) -> None:
        """Count the memory of a table, too. Raises TableTooLargeError above a table's share, OverloadedError."""
        most = int(self._admission.bytes.most * TABLE_SHARE)
        if (memory := caller.bytes_held + size.memory) > most:
            raise TableTooLargeError(size.rows, size.cells, memory, most)
        self.hold(size.memory, caller)

    def _check(self, size: int) -> None:
        if size > self._most:
            raise RequestTooLargeError(self._most, size)


def media_type(request: Request) -> str:
    """The body's media type in lower case, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_json(kind: str) -> bool:
    """Whether a body of the media type is read as JSON. curl's default for -d and no type at all are, too."""
    return kind in ("", "application/json", "text/json", "application/x-www-form-urlencoded", "text/plain") or (
        kind.endswith("+json")
    )


async def loaded(raw: bytes | str) -> Any:
    """loads(), in a thread for a long text."""
    return await apart(loads, raw)


async def apart(work: Callable[..., _T], raw: bytes | str, *further: Any) -> _T:
    """work(raw, ...), in a thread for a long text."""
    return await asyncio.to_thread(work, raw, *further) if len(raw) > THREAD_BYTES else work(raw, *further)


def weight(raw: bytes | bytearray) -> int:
    """The bytes that the values of a JSON text take in memory, about; at least.

    `{},` is three bytes as text and two hundred as an object in a list. A list counts more than it takes: passes of the
    garbage collector over many lists hold the interpreter's lock for ten times as long as the reading.
    """
    objects, lists, commas, quotes = counts(raw, b'{[,"')
    return 192 * objects + 384 * lists + 32 * commas + 28 * quotes


def counts(raw: bytes | bytearray, marks: bytes) -> list[int]:
    """How often each byte of `marks` stands in a text.

    In parts: bytes.count() holds the interpreter's lock for the whole text, and the event loop would wait for a thread.
    """
    if len(raw) <= _FEW:
        return [raw.count(mark) for mark in marks]
    found = [0] * len(marks)
    values = np.frombuffer(raw, np.uint8)
    for at in range(0, len(values), _PART):
        part = values[at : at + _PART]
        for place, mark in enumerate(marks):
            found[place] += int(np.count_nonzero(part == mark))
    return found


def loads(raw: bytes | str) -> Any:
    """Any JSON value. Raises InvalidRequestError."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        where = f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise invalid("", f"the body is not JSON: {where}{_remedy(raw, error.doc, error.pos)}") from None


def _remedy(raw: bytes | str, text: str, at: int) -> str:
    """What the caller may have meant."""
    if raw[:_FIRST].lstrip()[:1] not in (b"{", b"[", "{", "["):
        return "; a table needs the header Content-Type: text/csv"
    if _NO_NUMBER.search(text[max(0, at - _AROUND) : at + _AROUND]):
        return (
            "; JSON has no NaN and no infinity: fill a missing value, or leave its row out; for covariates write null"
        )
    return ""
