"""Deadlines as instants of the monotonic clock, in seconds.

A deadline is made once, where a request enters the process; `NEVER` is no deadline. Between processes the remaining
time travels, since clocks differ.
"""

import math
import time

NEVER = math.inf
now = time.monotonic


def after(seconds: float | None) -> float:
    """The instant `seconds` from now; None is NEVER."""
    return NEVER if seconds is None else now() + seconds


def microseconds_left(deadline: float, at: float) -> int:
    """Whole microseconds from `at` to the deadline for the wire: 0 for NEVER, at least 1 for every other deadline."""
    return 0 if deadline == NEVER else max(1, int((deadline - at) * 1e6))


def from_microseconds(left: int, at: float) -> float:
    """The instant `left` microseconds after `at`; 0 is NEVER."""
    return NEVER if left == 0 else at + left * 1e-6
