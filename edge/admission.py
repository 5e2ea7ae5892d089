"""Admission of a request before its body is read: limits in all, and a credential that the gateway knows.

Owns the counts of requests, live sessions, bytes in work and bytes of answers, and the memory of accepted credentials,
so that a caller without a known credential can't make the edge read and parse a large body. The gateway checks every
call again.
"""

import asyncio
import functools
import hashlib
import hmac
import secrets
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn, Self

from google.protobuf.message import Message
from google.rpc import code_pb2

from edge.caller import Caller
from edge.config import Config
from edge.upstream import Upstream
from market_inference.contract import deadline
from market_inference.contract.errors import OverloadedError, RemoteError, UnauthenticatedError
from market_inference.contract.generated import inference_pb2
from market_inference.contract.methods import METHODS
from runtime import malloc

MESSAGE_BYTES: Final = 1 << 20
"""The longest message of a WebSocket, and the longest line of bars."""
SMALL: Final = 32 << 10
"""Bytes that every live session may hold: a bar has a hundred bytes, a thousand with the values in memory."""
SPARED: Final = 16
"""Requests, and live sessions, of a known credential that other credentials do not crowd out."""
SPARED_BYTES: Final = 256 << 10
"""The same for the bytes of its requests: some thousand values."""
# A revoked key can make the edge parse bodies for this long; the gateway refuses the calls at once.
_KNOWN_SECONDS = 30.0
_MOST_KNOWN = 4096
_RETRY_SECONDS = 1.0
_CHECK_SECONDS = 5.0
# The memory of larger answers goes back to the system: malloc would keep half of it.
_TRIMMED_BYTES: Final = 8 << 20
# The name of all callers without a known credential, which no credential has.
STRANGERS: Final = ""


class Count:
    """A number in work with a limit, and a limit `each` for one credential, by default half.

    A credential with at most `spared` in work is not refused because of the others.
    """

    def __init__(self, what: str, most: int, *, each: int = 0, spared: int = 0) -> None:
        self.what = what
        self.most = most
        self.each = each or (most + 1) // 2
        self.now = 0
        self.shares: Counter[str] = Counter()
        self._spared = spared

    def add(self, credential: str, number: int = 1) -> None:
        """Raises OverloadedError above a limit."""
        self.check(credential, number)
        self.change(credential, number)

    def check(self, credential: str, number: int, *, alone: bool = False) -> None:
        """Raises OverloadedError if so many more would be above a limit; `alone`: above the limit in all."""
        share = self.shares[credential] + number
        if share > self.each and not alone:
            self._refuse("client", self.each)
        if self.now + number > self.most and share > self._spared:
            self._refuse("edge", self.most)

    def change(self, credential: str, number: int) -> None:
        """Count more, or less with a negative number, whatever the limits say."""
        self.now += number
        self.shares[credential] += number
        if not self.shares[credential]:
            del self.shares[credential]

    @contextmanager
    def held(self, credential: str, number: int = 1) -> Iterator[None]:
        """Count for the time of a block. Raises OverloadedError above a limit."""
        self.add(credential, number)
        try:
            yield
        finally:
            self.change(credential, -number)

    def move(self, giver: str, taker: str) -> None:
        """Count one of `giver` as one of `taker`. Raises OverloadedError above the taker's limit."""
        if self.shares[taker] >= self.each:
            self._refuse("client", self.each)
        self.change(giver, -1)
        self.change(taker, 1)

    def of(self, credential: str) -> "Held":
        """The bytes of one session of the credential."""
        return Held(self, credential)

    def _refuse(self, whose: str, most: int) -> NoReturn:
        raise OverloadedError(f"this {whose} has too many {self.what} in work (max {most})", retry_after=_RETRY_SECONDS)


class Held:
    """The bytes of one live session in a count, by kind. A context manager that gives all bytes back.

    Up to SMALL bytes count and are never refused: else one session would end because of another session's bytes.
    """

    def __init__(self, count: Count, credential: str) -> None:
        self._count = count
        self.credential = credential
        self._parts: dict[str, int] = {}
        self.size = 0

    def set(self, **parts: int) -> None:
        """Hold so many bytes of these kinds. Raises OverloadedError, and then changes nothing."""
        more = sum(parts.values()) - sum(self._parts.get(kind, 0) for kind in parts)
        if more > 0 and sum(parts.values()) > SMALL:
            # A lone session may hold more: no other session of the client waits.
            alone = self._count.shares[self.credential] - self.size <= SMALL
            self._count.check(self.credential, more, alone=alone)
        self._count.change(self.credential, more)
        self._parts |= parts
        self.size += more

    def release(self) -> None:
        """Give all bytes back."""
        self.set(**dict.fromkeys(self._parts, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Admission:
    """The limits of one edge."""

    def __init__(self, config: Config, upstream: Upstream) -> None:
        self.requests = Count("requests", config.max_in_flight, spared=SPARED)
        self.watches = Count("live sessions", config.max_watches, spared=SPARED)
        self.bytes = Count("bytes of requests", config.max_bytes_in_flight, spared=SPARED_BYTES)
        # Apart from the bytes of requests: answers that are not read must not refuse requests.
        self.answers = Count("bytes of answers", config.max_bytes_in_flight, spared=SPARED_BYTES)
        # A WebSocket's key may come in the first message: the message is in memory before the key is known.
        strangers = config.max_bytes_in_flight // MESSAGE_BYTES
        self.strangers = Count("live sessions without a key yet", strangers, each=strangers)
        # Bars, and the beginning of a line, stay in memory until the turn of the bars. Requests have a budget of their
        # own: sessions last, and full sessions must not refuse requests.
        self.replays = Count("bytes of live sessions' bars", config.max_bytes_in_flight)
        self.messages = Count("bytes of WebSockets' unread messages", config.max_bytes_in_flight)
        self._upstream = upstream
        self._salt = secrets.token_bytes(16)
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._asked: dict[bytes, asyncio.Task[None]] = {}

    def client(self, caller: Caller) -> str:
        """The credential if the gateway has accepted it before, else the name of all other callers."""
        return caller.credential if self._digest(caller) in self._known else STRANGERS

    def in_turn(self, caller: Caller | None, address: tuple[str, int] | None) -> str:
        """Whose turn it is: the credential if the gateway has accepted it before, else the address's host."""
        return (self.client(caller) if caller is not None else STRANGERS) or (address[0] if address else "")

    @contextmanager
    def place(self, caller: Caller) -> Iterator[None]:
        """Count a request for the time of a block. Raises OverloadedError above a limit.

        Callers whose credential the gateway has not accepted yet count as one client, so that invented credentials
        have no spared places of their own.
        """
        caller.counted_as = self.client(caller)
        self.requests.add(caller.counted_as)
        try:
            yield
        finally:
            self.requests.change(caller.counted_as, -1)

    def hold_answer(self, caller: Caller, size: int) -> None:
        """Count `size` bytes of memory for the caller's answer, in place of the bytes counted before.

        Raises OverloadedError above a limit. A large answer passes while the others are small: no later try would pass.
        """
        more = size - caller.answer_held
        if more > 0 and self.answers.now - caller.answer_held > self.answers.most // 8:
            self.answers.check(caller.credential, more)
        self.answers.change(caller.credential, more)
        caller.answer_held = size

    def release_answer(self, caller: Caller) -> None:
        """Give the memory of the caller's answer back."""
        if caller.answer_held > _TRIMMED_BYTES:
            asyncio.get_running_loop().run_in_executor(None, malloc.trim)
        self.answers.change(caller.credential, -caller.answer_held)
        caller.answer_held = 0

    def release(self, caller: Caller) -> None:
        """Give the bytes of the caller's body back."""
        self.bytes.change(caller.credential, -caller.bytes_held)
        caller.bytes_held = 0

    async def check(self, caller: Caller) -> None:
        """Return when the gateway knows the credential. Raises UnauthenticatedError, RemoteError, OverloadedError."""
        if not caller.credential:
            raise UnauthenticatedError("no API key: send the header `Authorization: Bearer KEY` or `X-API-Key: KEY`")
        digest = self._digest(caller)
        if self._known.get(digest, 0.0) <= deadline.now():
            # One question for all requests that have come with the credential; it outlives the first of the requests.
            asked = self._asked.get(digest)
            if asked is None:
                asked = self._asked[digest] = asyncio.create_task(self._ask_about(caller, digest))
                asked.add_done_callback(functools.partial(self._answered, digest))
            await asyncio.shield(asked)
        if caller.counted_as == STRANGERS:
            self.requests.move(STRANGERS, caller.credential)
            caller.counted_as = caller.credential

    def _digest(self, caller: Caller) -> bytes:
        return hmac.digest(self._salt, caller.credential.encode(), hashlib.sha256)

    def _answered(self, digest: bytes, asked: asyncio.Task[None]) -> None:
        del self._asked[digest]
        if not asked.cancelled():
            asked.exception()  # raised in the requests that still wait, if any

    async def _ask_about(self, caller: Caller, digest: bytes) -> None:
        try:
            await self._ask(caller)
        except RemoteError as error:
            if error.carried.code == code_pb2.UNAUTHENTICATED:
                self._known.pop(digest, None)
            raise
        self._known[digest] = deadline.after(_KNOWN_SECONDS)
        self._known.move_to_end(digest)
        while len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)

    async def _ask(self, caller: Caller) -> None:
        """ListModels costs the gateway least. A refusal for lack of a scope shows a known credential, too."""
        asked: Message = inference_pb2.ListModelsRequest()
        try:
            await self._upstream.call(METHODS["ListModels"], asked, caller, _CHECK_SECONDS)
        except RemoteError as error:
            # A full or restarting gateway may refuse before it looks at the credential.
            if error.carried.code != code_pb2.PERMISSION_DENIED:
                raise
