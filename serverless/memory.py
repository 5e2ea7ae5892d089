"""Memory between jobs: when cached memory is released to the device and the operating system.

Owns the policy and the measurement. Allocators cache the memory that jobs have freed, which makes the next job fast.
Releasing the caches serves shared devices and processes that are short of memory.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

from market_inference.contract import deadline

Policy = Literal["on_pressure", "each_job"]

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
# Seconds between releases: if a release did not relieve the pressure, an immediate second release will not either.
_PAUSE_SECONDS = 10.0


class Memory:
    """Decides after every job. `share`: the fraction of memory in use, [0, 1]. `release`: frees cached memory."""

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
        """Start a release if the policy asks for a release. The job's result does not wait."""
        if self._policy == "on_pressure":
            if self._clock() < self._not_before or self._share() < self._pressure:
                return
            self._not_before = self._clock() + _PAUSE_SECONDS
        if self._releasing is None:
            self._releasing = asyncio.create_task(self._run())
        else:
            self._again = True

    async def idle(self) -> None:
        """Wait until no release is running."""
        while self._releasing is not None:
            await self._releasing

    async def _run(self) -> None:
        """Release; if jobs end during the release, release once more."""
        try:
            self._again = True
            while self._again:
                self._again = False
                await self._release()
        finally:
            self._releasing = None


def process_share() -> float:
    """Resident memory of this process as a fraction of the memory limit, [0, 1]; 0 without Linux's /proc."""
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
