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
    return int(subprocess.check_output([sys.executable, "-c", _FAULTS.format(keep=keep)]))


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_blocks_that_are_freed_are_handed_out_again_without_faults() -> None:
    assert faults(keep=True) < 100 < faults(keep=False)
