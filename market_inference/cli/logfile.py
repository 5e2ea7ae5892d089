"""The log file of a child process.

Owns the choice of a file that no running process writes to, and the content of the run before.
"""

import fcntl
import shutil
from pathlib import Path
from typing import BinaryIO

MOST_AT_ONCE = 20


def open_log(path: Path) -> tuple[BinaryIO, Path]:
    """An empty log at `path`, or beside it where a running process logs to `path`; and its path.

    The content of the last run moves to NAME.previous.log. The lock belongs to the open file: a child that inherits the
    file as its standard error holds the lock until its end. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for number in range(1, MOST_AT_ONCE + 1):
        chosen = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        file = chosen.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        if chosen.stat().st_size:
            shutil.copyfile(chosen, chosen.with_name(f"{chosen.stem}.previous{chosen.suffix}"))
            file.truncate(0)
        return file, chosen
    raise OSError(f"{MOST_AT_ONCE} processes log to {path}: end some, or use another state folder")
