"""What the C library does with memory that is freed: it keeps some, for the next answer.

Owns two settings of glibc's malloc. A batch of answers is a megabyte that is written, sent and freed again a hundred
times a second. By default such blocks go back to the kernel each time, and come back page by page, each with a fault
that takes longer than filling the page. glibc stops that by itself once the process has happened to free a larger
block (mallopt(3), M_MMAP_THRESHOLD); here it is so from the start.
"""

import ctypes
from typing import Final

KEPT_BYTES: Final = 32 << 20
"""Free memory that stays at the end of a heap, and the size from which blocks come from the kernel one by one."""
# From malloc.h.
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3


def keep_freed() -> None:
    """Keep freed memory within these bounds. Does nothing where the C library has no mallopt()."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, KEPT_BYTES)
