"""Memory between jobs: when what caches hold goes back to the device and the system.

Owns the policy and the measure. Allocators keep what jobs have freed, which makes the next job fast; giving it back is
for devices that are shared, or when little is left.
"""

import asyncio
import ctypes
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

from market_inference.contract import deadline

Policy = Literal["on_pressure", "each_job"]

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
# Pressure that a release did not relieve is not worth another one at once.
_AGAIN_AFTER = 10.0


class Memory:
    """Decides after every job. `share` is the part of the memory in use; `release` gives back what is only cached."""

    def __init__(
        self,
        policy: Policy,
        pressure: float,
        share: Callable[[], float],
        release: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = deadline.now,
    ) -> None:
        self._policy = policy
        self._pressure = pressure
        self._share = share
        self._release = release
        self._clock = clock
        self._not_before = -deadline.NEVER
        self._releasing: asyncio.Task[None] | None = None
        self._again = False

    def job_done(self) -> None:
        """Start a release if the policy wants one; the job's result does not wait for it."""
        if self._policy == "on_pressure":
            if self._clock() < self._not_before or self._share() < self._pressure:
                return
            self._not_before = self._clock() + _AGAIN_AFTER
        if self._releasing is None:
            self._releasing = asyncio.create_task(self._run())
        else:
            self._again = True

    async def settled(self) -> None:
        """Return when no release is under way."""
        while self._releasing is not None:
            await self._releasing

    async def _run(self) -> None:
        """Release, and once more for the jobs that ended meanwhile."""
        try:
            self._again = True
            while self._again:
                self._again = False
                await self._release()
        finally:
            self._releasing = None


def process_share() -> float:
    """This process's resident memory as a part of what it may have, [0, 1]; 0 where Linux's files are missing."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        resident = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))
        return resident / _limit()
    except (OSError, StopIteration):
        return 0.0


def _limit() -> int:
    meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
    total = int(meminfo.split(maxsplit=2)[1]) * 1024
    try:
        return min(total, int(_CGROUP_LIMIT.read_text(encoding="ascii")))
    except (OSError, ValueError):  # no cgroup, or no limit: "max"
        return total


def trim_heap() -> None:
    """Give the C heap's free pages back to the system, where the C library can (glibc)."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
