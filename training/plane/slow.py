"""Threads for requests, in shares of owners.

Slow requests are those whose time follows the bytes and rows of a caller, or the answer of another service. All others,
the reports of machines among them, are quick: these never wait for slow requests, and an owner's quick requests wait
for a few of each other owner. /health has a thread of its own.
"""

import functools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from anyio import CapacityLimiter, to_thread

from training.plane.errors import ConflictError, OverloadedError

T = TypeVar("T")
THREADS: Final = 8
"""Threads of a worker for slow requests, and as many for quick ones."""
EACH: Final = 2
"""Threads of an owner, of THREADS; further requests of the owner wait without a thread."""
MOST: Final = 50
"""Slow requests of an owner in a worker, at work or waiting, and as many quick ones; more are refused."""
PIECES: Final = 16
"""Threads of a worker for the pieces of uploads and downloads of the folder store."""


@dataclass(slots=True)
class _Owner:
    """The requests of an owner, by the names of the resources."""

    threads: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(EACH))
    requests: list[str] = field(default_factory=list)


class Quick:
    """The threads of one worker for requests of one kind."""

    def __init__(self) -> None:
        self._threads = CapacityLimiter(THREADS)
        self._owners: dict[str, _Owner] = {}

    async def run(self, owner: str, work: Callable[[], T], name: str = "") -> T:
        """The result of work(), in a thread of the owner's share.

        `name`: a resource of the owner for one request at a time. Raises ConflictError for a second request,
        OverloadedError.
        """
        mine = self._owners.setdefault(owner, _Owner())
        if name and name in mine.requests:
            raise ConflictError(f"another request works on {name}; ask again when that request has ended")
        if len(mine.requests) >= MOST:
            raise OverloadedError(f"at most {MOST} requests of this kind of one owner at once", retry_after=5.0)
        mine.requests.append(name)
        try:
            async with mine.threads:
                return await to_thread.run_sync(work, limiter=self._threads)
        finally:
            mine.requests.remove(name)
            if not mine.requests:
                del self._owners[owner]

    def route(self, named: str = "") -> Callable[[Callable[..., T]], Callable[..., Any]]:
        """A decorator of a route's function with a parameter `user`, `pod` or `request`: run() runs the calls.

        `named`: the parameter with the id of a resource for one call at a time.
        """

        def decorate(work: Callable[..., T]) -> Callable[..., Any]:
            @functools.wraps(work)
            async def call(**given: Any) -> T:
                return await self.run(_owner(given), functools.partial(work, **given), given.get(named, ""))

            return call

        return decorate


def machines_of(owner: str) -> str:
    """The name of the owner's machines: the owner's other requests take no share of theirs."""
    return f"machines of {owner}"


def _owner(given: Mapping[str, Any]) -> str:
    if "user" in given:
        return str(given["user"].name)
    return machines_of(given["pod"].owner) if "pod" in given else str(given["request"].state.client)


class Slow(Quick):
    """The threads of one worker for slow requests, and for the steps of uploads and downloads."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces = CapacityLimiter(PIECES)

    async def piece(self, work: Callable[..., T], *given: Any) -> T:
        """The result of work(*given), a step of an upload or a download."""
        return await to_thread.run_sync(work, *given, limiter=self._pieces)

    async def stream(self, chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
        """The chunks, each read as a piece."""
        while chunk := await self.piece(next, chunks, b""):
            yield chunk
