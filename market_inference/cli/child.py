"""A service as a child process that ends with its parent: `python child.py MODULE`.

Owns the end of a child whose parent was killed. The parent holds the other end of the child's standard input and never
writes: the end of the input is the end of the parent. Imports nothing but the standard library.
"""

import os
import runpy
import signal
import sys
import threading
import time

GRACE_SECONDS = 30.0


def main() -> None:
    """Run the module as `python -m` does."""
    _, module, *arguments = sys.argv
    threading.Thread(target=_follow_parent, name="parent", daemon=True).start()
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _follow_parent() -> None:
    """SIGTERM at the parent's end, so that the service drains; SIGKILL after the grace."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
