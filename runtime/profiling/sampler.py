"""CPU profiles by sampling this process's stacks from a child process (py-spy).

Owns the sampling program and its errors. server.py owns access.

py-spy pauses every thread for a moment per sample, and reads the names of functions and lines. The option that shows
variables is off.
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

from market_inference.contract.errors import InternalError, ProfileRefusedError, ServiceUnavailableError
from runtime.extra import ExtraMissingError
from runtime.logs import fields

log = logging.getLogger(__name__)

SAMPLES_PER_SECOND = 100
# Extra time for the start of py-spy and for writing a large file.
_PATIENCE_SECONDS = 30.0
_IDLE = re.compile(rb"no stack counts found", re.IGNORECASE)
_REFUSED = re.compile(rb"permission denied|operation not permitted", re.IGNORECASE)
# linux/prctl.h
_PR_SET_PTRACER = 0x59616D61

REFUSAL = (
    "the system does not let a program read this process's stacks: the container needs SYS_PTRACE in "
    "securityContext.capabilities.add (Docker: --cap-add SYS_PTRACE), and the node's kernel.yama.ptrace_scope must not "
    "be above 1"
)


class Sampler:
    """Samples all threads of this process. `setting` turned profiles on. Raises ExtraMissingError."""

    def __init__(self, setting: str) -> None:
        program = shutil.which("py-spy", path=sysconfig.get_path("scripts")) or shutil.which("py-spy")
        if program is None:
            raise ExtraMissingError(setting, "profile")
        self._program = program

    async def sample(self, seconds: int, form: str) -> bytes:
        """A profile of so many seconds in py-spy's format `flamegraph`, `speedscope` or `raw`.

        Raises ProfileRefusedError if the system forbids it, ServiceUnavailableError if no thread ran during a sample,
        and InternalError for any other failure.
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
        if _IDLE.search(said):
            raise ServiceUnavailableError(f"no thread ran in {seconds} s: take the profile while the process is busy")
        log.error("profile failed", extra=fields(status=status, said=said.decode(errors="replace")[-500:]))
        raise InternalError("the profile failed; the service's log says why")

    async def _run(self, seconds: int, *arguments: str) -> tuple[int, bytes]:
        """The exit status and the stderr of py-spy. The child process has ended when this returns or raises."""
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
        # subprocess uses vfork. uvloop would fork: unsafe with many threads, and a copy of the page tables of
        # gigabytes.
        return subprocess.Popen(  # noqa: S603  # our own arguments
            [self._program, "record", "--pid", str(os.getpid()), "--threads", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )


def _let_children_trace(allowed: bool) -> None:
    """Let child processes trace this process under Yama, which by default allows this to ancestors alone.

    Source: prctl(2), PR_SET_PTRACER. The call fails without effect on a kernel without Yama.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, os.getpid() if allowed else 0, 0, 0, 0)
