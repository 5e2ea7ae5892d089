"""Admission of a request before its body is read: limits in all, and a credential that the gateway knows.

Owns the counts of requests, live sessions and bytes in work, and the memory of accepted credentials, so that a caller
without a known credential can't make the edge read and parse a large body. The gateway checks every call again.
"""

import hashlib
import hmac
import secrets
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self

from google.protobuf.message import Message
from google.rpc import code_pb2

from edge.caller import Caller
from edge.config import Config
from edge.upstream import Upstream
from market_inference.contract import deadline
from market_inference.contract.errors import OverloadedError, RemoteError, UnauthenticatedError
from market_inference.contract.generated import inference_pb2
from market_inference.contract.methods import METHODS

MESSAGE_BYTES: Final = 1 << 20
"""The longest message of a WebSocket, and the longest line of bars."""
SMALL: Final = 32 << 10
"""Bytes that every live session may hold: a bar has a hundred bytes, a thousand with the values in memory."""
# A revoked key can make the edge parse bodies for this long; the gateway refuses the calls at once.
_KNOWN_SECONDS = 30.0
_MOST_KNOWN = 4096
_RETRY_SECONDS = 1.0
_CHECK_SECONDS = 5.0


class Count:
    """A number in work with a limit."""

    def __init__(self, what: str, most: int) -> None:
        self.what = what
        self.most = most
        self.now = 0

    def add(self, number: int = 1) -> None:
        """Raises OverloadedError above the limit."""
        self.check(number)
        self.now += number

    def check(self, number: int) -> None:
        """Raises OverloadedError if so many more would be above the limit."""
        if self.now + number > self.most:
            raise OverloadedError(
                f"this edge has too many {self.what} in work (max {self.most})", retry_after=_RETRY_SECONDS
            )

    def remove(self, number: int = 1) -> None:
        self.now -= number

    @contextmanager
    def held(self, number: int = 1) -> Iterator[None]:
        """Count for the time of a block. Raises OverloadedError above the limit."""
        self.add(number)
        try:
            yield
        finally:
            self.remove(number)


class Budget(Count):
    """Bytes of live sessions; at most half of the bytes for one credential."""

    def __init__(self, what: str, most: int) -> None:
        super().__init__(what, most)
        self.shares: Counter[str] = Counter()

    def of(self, credential: str) -> "Held":
        """The bytes of one session of the credential."""
        return Held(self, credential)


class Held:
    """The bytes of one live session in a budget, by kind. A context manager that gives all bytes back.

    Up to SMALL bytes count and are never refused: else one session would end because of another session's bytes.
    """

    def __init__(self, budget: Budget, credential: str) -> None:
        self._budget = budget
        self.credential = credential
        self._parts: dict[str, int] = {}
        self.size = 0

    def set(self, **parts: int) -> None:
        """Hold so many bytes of these kinds. Raises OverloadedError, and then changes nothing."""
        more = sum(parts.values()) - sum(self._parts.get(kind, 0) for kind in parts)
        if more > 0 and sum(parts.values()) > SMALL:
            self._check(more)
        self._budget.now += more
        self._budget.shares[self.credential] += more
        self._parts |= parts
        self.size += more

    def _check(self, more: int) -> None:
        """Raises OverloadedError."""
        share, half = self._budget.shares[self.credential], self._budget.most // 2
        # A lone session may hold more: no other session of the client waits.
        if share - self.size > SMALL and share + more > half:
            raise OverloadedError(
                f"this client has too many {self._budget.what} in work (max {half})", retry_after=_RETRY_SECONDS
            )
        self._budget.check(more)

    def release(self) -> None:
        """Give all bytes back."""
        self.set(**dict.fromkeys(self._parts, 0))
        if not self._budget.shares[self.credential]:
            del self._budget.shares[self.credential]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Admission:
    """The limits of one edge."""

    def __init__(self, config: Config, upstream: Upstream) -> None:
        self.requests = Count("requests", config.max_in_flight)
        self.watches = Count("live sessions", config.max_watches)
        self.bytes = Count("bytes of requests", config.max_bytes_in_flight)
        # A WebSocket's key may come in the first message: the message is in memory before the key is known.
        self.strangers = Count("live sessions without a key yet", config.max_bytes_in_flight // MESSAGE_BYTES)
        # Bars, and the beginning of a line, stay in memory until the turn of the bars. Requests have a budget of their
        # own: sessions last, and full sessions must not refuse requests.
        self.replays = Budget("bytes of live sessions' bars", config.max_bytes_in_flight)
        self.messages = Budget("bytes of WebSockets' unread messages", config.max_bytes_in_flight)
        self._upstream = upstream
        self._salt = secrets.token_bytes(16)
        self._known: OrderedDict[bytes, float] = OrderedDict()

    def held(self, caller: Caller) -> Held:
        """The bytes of a live session of the caller in `replays`."""
        return self.replays.of(caller.credential)

    def release(self, caller: Caller) -> None:
        """Give the bytes of the caller's body back."""
        self.bytes.remove(caller.bytes_held)
        caller.bytes_held = 0

    async def check(self, caller: Caller) -> None:
        """Return when the gateway knows the credential. Raises UnauthenticatedError, RemoteError."""
        if not caller.credential:
            raise UnauthenticatedError("no API key: send the header `Authorization: Bearer KEY` or `X-API-Key: KEY`")
        digest = hmac.digest(self._salt, caller.credential.encode(), hashlib.sha256)
        if self._known.get(digest, 0.0) > deadline.now():
            return
        await self._ask(caller)
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
