"""Files that may change while a process runs: keys, certificates, key sets.

Owns the comparison of files with their last use, beside the event loop: a network mount that is away answers never.
Kubernetes replaces a mounted secret by a symbolic link to a new file;
an editor or a command replaces the file itself. Both change the result of stat() for the path.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

_Stamp = tuple[tuple[int, int, int], ...]


class Watched:
    """A set of files. The content at construction counts as used."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._found: _Stamp | None = None
        self._asked: asyncio.Future[_Stamp] | None = None
        with contextlib.suppress(OSError):
            self._found = self._stamp()
        self._used = self._found

    async def changed(self) -> bool:
        """As changed_now(), in a thread. A mount that hangs keeps one thread, not one for each call."""
        if self._asked is None:
            self._asked = asyncio.ensure_future(asyncio.to_thread(self._stamp))
        await asyncio.wait({self._asked})
        finished, self._asked = self._asked, None
        self._found = finished.result()
        return self._found != self._used

    def changed_now(self) -> bool:
        """Whether the files differ from the files at the last used(). Raises OSError for a missing file."""
        self._found = self._stamp()
        return self._found != self._used

    def used(self) -> None:
        """The content found by the last call is in use. Without used(), the files stay changed."""
        self._used = self._found

    def _stamp(self) -> _Stamp:
        found = [path.stat() for path in self._paths]
        return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in found)
