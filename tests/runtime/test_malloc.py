"""Freed memory is reused without a system call."""

import ctypes
import subprocess
import sys

import pytest

_FAULTS = """
import resource
from runtime import malloc

def answers():
    return [b"x" * (1 << 20) for _ in range(8)]

if {keep}:
    malloc.keep_freed()
answers()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
answers()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep: bool) -> int:
    # A separate process, because earlier frees change the behaviour of malloc.
    return int(subprocess.check_output([sys.executable, "-c", _FAULTS.format(keep=keep)], timeout=250))


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_blocks_that_are_freed_are_handed_out_again_without_faults() -> None:
    assert faults(keep=True) < 100 < faults(keep=False)


_RESIDENT = """
import os
from runtime import malloc

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")

malloc.keep_freed()
"""

_TRIMMED = f"""
{_RESIDENT}
blocks = [b"x" * (1 << 20) for _ in range(30)]
del blocks
kept = resident()
malloc.trim()
print(kept - resident())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_a_trim_returns_what_was_kept() -> None:
    assert int(subprocess.check_output([sys.executable, "-c", _TRIMMED], timeout=250)) > 10 << 20


_MAPPED = f"""
{_RESIDENT}
before = resident()
blocks = [(b"x" * (5 << 20), b"x" * (1 << 16)) for _ in range(10)]
small = [block[1] for block in blocks]
del blocks
print(resident() - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_large_blocks_go_back_though_small_ones_between_them_stay() -> None:
    assert int(subprocess.check_output([sys.executable, "-c", _MAPPED], timeout=250)) < 10 << 20
