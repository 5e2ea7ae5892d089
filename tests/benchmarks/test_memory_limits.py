"""The shipped memory limits, and control groups that enforce them where the system lets them be made."""

import subprocess
import sys

import pytest

from benchmarks.memory_limits import MemoryGroup, NoGroupsError, shipped

LIMIT = 64 << 20


def test_the_limits_are_those_of_the_manifests():
    assert (shipped("gateway"), shipped("inference")) == (1 << 30, 1 << 30)


def spend(group: MemoryGroup, size: int) -> int:
    """The exit status of a process of the group that holds so many bytes."""
    program = f"import sys; sys.stdin.readline(); b'x' * {size}; print('held', flush=True)"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        group.take(process.pid)
        process.communicate(b"\n")
        return process.returncode


def test_a_process_above_its_limit_is_killed_and_counted():
    try:
        group = MemoryGroup("test", LIMIT)
    except NoGroupsError as error:
        pytest.skip(str(error))
    with group:
        assert (spend(group, LIMIT // 4), group.kills) == (0, 0)
        assert LIMIT // 4 < group.peak <= LIMIT
        assert (spend(group, 2 * LIMIT), group.kills) == (-9, 1)
    assert not group._folder.exists()
