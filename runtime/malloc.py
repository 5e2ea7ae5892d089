"""glibc's malloc: freed memory stays in the malloc arena for the next answer, and goes back after a model was loaded.

Owns M_TRIM_THRESHOLD and M_MMAP_THRESHOLD. A batch of answers is a megabyte that is allocated and freed a hundred times
a second. By default malloc returns such blocks to the kernel each time, and each new page costs a page fault, which
takes longer than writing the page. glibc raises its thresholds once the process has freed a larger block (mallopt(3),
M_MMAP_THRESHOLD); these settings apply from the start.
"""

import ctypes
from typing import Final

KEPT_BYTES: Final = 32 << 20
"""Free memory kept at the end of an arena."""
MAPPED_BYTES: Final = 4 << 20
"""The size from which malloc maps a block by itself, and unmaps the block when it is freed: rare answers of many
megabytes would leave gaps that smaller blocks split.
"""
# From malloc.h.
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3


def keep_freed() -> None:
    """Apply the settings. Without effect on a C library without mallopt()."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, MAPPED_BYTES)


def trim() -> None:
    """Return the free pages of all arenas to the kernel. Without effect on a C library without malloc_trim()."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
