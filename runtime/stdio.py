"""The standard streams of a process: stdin, stdout and stderr are open, whatever the process was started with.

Owns the descriptors 0 to 2 and sys.stdout and sys.stderr. A process that starts with a closed stream would give the
stream's number to a socket or a pipe, and the output of a library would go there.
"""

import os
import sys
from pathlib import Path


def hold() -> None:
    """Open /dev/null in place of closed standard streams. Call before the process opens any file."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
            os.set_inheritable(descriptor, True)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
