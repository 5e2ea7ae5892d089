"""Files that may change while a process runs: keys, certificates, key sets.

Owns how a change is noticed. A secret mounted by Kubernetes changes by a symbolic link to a new file, an editor's or a
command's by a new file in place of the old one; both show in what stat() says of the path.
"""

from collections.abc import Sequence
from pathlib import Path

_Stamp = tuple[tuple[int, int, int] | None, ...]


class Watched:
    """A set of files; `changed()` is true at most once for each change."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._seen = self._stamp()

    def changed(self) -> bool:
        stamp = self._stamp()
        changed = stamp != self._seen and None not in stamp
        if changed:
            self._seen = stamp
        return changed

    def _stamp(self) -> _Stamp:
        return tuple(_stamp(path) for path in self._paths)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size
