"""How many cores this process may use."""

import os
from pathlib import Path

_CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def available(limit: Path = _CGROUP_LIMIT) -> int:
    """The cores of the process's affinity, or of its container's CPU limit, rounded up, if that is fewer.

    `limit`: the file of a cgroup of version 2, "MICROSECONDS PERIOD", or "max PERIOD" without a limit. A container of
    version 1 counts as one without a limit.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = limit.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else min(cores, max(1, -(-int(quota) // int(period))))
