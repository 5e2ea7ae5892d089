"""The standard streams of a process: stdin, stdout and stderr are open, whatever the process was started with.

Owns the descriptors 0 to 2. A process that starts with one of them closed would give that number to a socket or a pipe,
and a line of the log would go there.
"""

import os


def hold() -> None:
    """Open /dev/null in place of standard streams that are closed. Call before anything else opens a file."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            os.set_inheritable(descriptor, True)
