"""Threads for requests whose time follows the bytes and rows of a caller, or the answer of another service.

Owns the shares of owners. All other requests, /health and the reports of machines among them, have the threads of the
HTTP framework and never wait for slow requests.
"""

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from anyio import CapacityLimiter, to_thread

from training.plane.errors import ConflictError, OverloadedError

T = TypeVar("T")
THREADS: Final = 8
"""Threads of a worker for such requests."""
EACH: Final = 2
"""Threads of an owner, of THREADS; further requests of the owner wait without a thread."""
MOST: Final = 50
"""Slow requests of an owner in a worker, at work or waiting; more are refused."""
PIECES: Final = 16
"""Threads of a worker for the pieces of uploads and downloads of the folder store."""


@dataclass(slots=True)
class _Owner:
    """The requests of an owner, by the names of the resources."""

    threads: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(EACH))
    requests: list[str] = field(default_factory=list)


class Slow:
    """The threads of one worker."""

    def __init__(self) -> None:
        self._threads, self._pieces = CapacityLimiter(THREADS), CapacityLimiter(PIECES)
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
        """A decorator of a route's function with a parameter `user` or `pod`: run() runs the calls.

        `named`: the parameter with the id of a resource for one call at a time.
        """

        def decorate(work: Callable[..., T]) -> Callable[..., Any]:
            @functools.wraps(work)
            async def call(**given: Any) -> T:
                owner: str = given["user"].name if "user" in given else given["pod"].owner
                return await self.run(owner, functools.partial(work, **given), given.get(named, ""))

            return call

        return decorate

    async def piece(self, work: Callable[..., T], *given: Any) -> T:
        """The result of work(*given), a step of an upload or a download."""
        return await to_thread.run_sync(work, *given, limiter=self._pieces)

    async def stream(self, chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
        """The chunks, each read as a piece."""
        while chunk := await self.piece(next, chunks, b""):
            yield chunk
