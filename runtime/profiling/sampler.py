"""Where this process spends its time, by sampling its stacks from outside (py-spy).

Owns the sampling program and what may go wrong with it. Who may ask, and how often, is profiles.py's.

The program stops every thread for a moment at each sample, and reads the names of functions and lines; it is not given
the option that would show variables.
"""

import asyncio
import ctypes
import logging
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from market_inference.contract.errors import InternalError, ProfileRefusedError
from runtime.extra import ExtraMissingError
from runtime.logs import fields

log = logging.getLogger(__name__)

SAMPLES_PER_SECOND = 100
# For its start, and for writing a large file.
_PATIENCE_SECONDS = 30.0
_REFUSED = re.compile(rb"permission denied|operation not permitted", re.IGNORECASE)
# linux/prctl.h
_PR_SET_PTRACER = 0x59616D61

REFUSAL = (
    "the system does not let a program read this process's stacks: the container needs SYS_PTRACE in "
    "securityContext.capabilities.add (Docker: --cap-add SYS_PTRACE), and the node's kernel.yama.ptrace_scope must not "
    "be above 1"
)


class Sampler:
    """Samples this process, all its threads. `setting` is what asked for it. Raises ExtraMissingError."""

    def __init__(self, setting: str) -> None:
        program = shutil.which("py-spy", path=sysconfig.get_path("scripts")) or shutil.which("py-spy")
        if program is None:
            raise ExtraMissingError(setting, "profile")
        self._program = program

    async def sample(self, seconds: int, form: str) -> bytes:
        """The file that py-spy makes of so many seconds, in its format `flamegraph`, `speedscope` or `raw`.

        Raises ProfileRefusedError, and InternalError when it fails for another reason.
        """
        with tempfile.TemporaryDirectory(prefix="profile-") as folder:
            file = Path(folder) / "profile"
            try:
                _let_children_trace(True)
                status, said = await self._run(seconds, "--format", form, "--output", str(file))
            finally:
                _let_children_trace(False)
            if status == 0:
                return await asyncio.to_thread(file.read_bytes)
        if _REFUSED.search(said):
            raise ProfileRefusedError(REFUSAL)
        log.error("profile failed", extra=fields(status=status, said=said.decode(errors="replace")[-500:]))
        raise InternalError("the profile failed; the service's log says why")

    async def _run(self, seconds: int, *arguments: str) -> tuple[int, bytes]:
        """The program's exit status and what it wrote on stderr; it is gone when this returns or raises."""
        child = self._start("--rate", str(SAMPLES_PER_SECOND), "--duration", str(seconds), *arguments)
        try:
            _, said = await asyncio.to_thread(child.communicate, timeout=seconds + _PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            said = b"it did not end in time"
        finally:
            child.kill()
            child.wait()
        return child.returncode, said

    def _start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        # Not the event loop's own way: uvloop forks, which a child of a process with so many threads may not survive,
        # and which copies the page tables of gigabytes. This one is a vfork.
        return subprocess.Popen(  # noqa: S603  # our own arguments
            [self._program, "record", "--pid", str(os.getpid()), "--threads", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )


def _let_children_trace(allowed: bool) -> None:
    """Where Yama lets a process be traced by its ancestors alone, as on many hosts, make an exception for its children.

    Source: prctl(2), PR_SET_PTRACER. It fails where there is no Yama, and is not needed there.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, os.getpid() if allowed else 0, 0, 0, 0)
