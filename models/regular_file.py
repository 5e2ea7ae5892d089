"""Files of models, which another program may replace.

Owns the opening, as market_inference/contract/regular_file.py does for the services: open() of a FIFO waits for a
writer, perhaps for ever, and a device may have bytes without an end.
"""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path


def opened(path: Path) -> BufferedReader:
    """The regular file at the path, to read. Raises OSError, for anything else than a regular file too."""
    return open(path, "rb", opener=_descriptor)


def _descriptor(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # Windows has none
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return descriptor
