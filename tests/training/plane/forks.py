"""Processes that run a program of a test, forked from a process that has imported the program's modules once.

A new interpreter takes more than a second of CPU time for the modules of the plane.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

# The program before defines run(), which each child calls with the arguments of a run.
_FORK = """
import json, os, sys, tempfile, traceback

for line in sys.stdin:
    children = []
    for arguments in json.loads(line):
        out = tempfile.TemporaryFile()
        if child := os.fork():
            children.append((child, out))
            continue
        os.dup2(out.fileno(), 1)
        code = 1
        try:
            run(*arguments)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    found = []
    for child, out in children:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with out:
            out.seek(0)
            found.append([code, out.read().decode()])
    print(json.dumps(found), flush=True)
"""


class Forks:
    """A context manager: the process that has the modules of `program`."""

    def __init__(self, program: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", program + _FORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, *runs: Sequence[object]) -> list[tuple[int, str]]:
        """Exit status and standard output of run() with each of the arguments, in processes that run at once."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([list(map(str, arguments)) for arguments in runs]) + "\n")
        self._process.stdin.flush()
        return [(code, said) for code, said in json.loads(self._process.stdout.readline())]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
