"""The cores of this process: affinity, and the CPU limit of a container."""

import os
from pathlib import Path

import pytest

from runtime import cores

HERE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("max 100000", HERE),
        ("100000 100000", 1),
        ("50000 100000", 1),
        ("100001 100000", min(2, HERE)),
        (f"{(HERE + 1) * 100000} 100000", HERE),
        ("", HERE),
    ],
)
def test_a_limit_counts_in_whole_cores(tmp_path: Path, content: str, expected: int) -> None:
    limit = tmp_path / "cpu.max"
    limit.write_text(content + "\n")
    assert cores.available(limit) == expected


def test_without_a_limit_the_affinity_counts(tmp_path: Path) -> None:
    assert cores.available(tmp_path / "missing") == HERE


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity of processes")
def test_the_affinity_counts(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert cores.available(tmp_path / "missing") == 1
    finally:
        os.sched_setaffinity(0, before)
