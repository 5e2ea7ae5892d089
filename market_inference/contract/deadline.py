"""Deadlines as fixed points in time.

A deadline is an instant of the monotonic clock in seconds, made once where a request enters the process; `NEVER` is no
deadline. Between processes the time left travels, since clocks differ.
"""

import math
import time

NEVER = math.inf
now = time.monotonic


def after(seconds: float | None) -> float:
    """The instant `seconds` from now; None is NEVER."""
    return NEVER if seconds is None else now() + seconds


def microseconds_left(deadline: float, at: float) -> int:
    """Whole microseconds from `at` to the deadline for the wire, where 0 means none: at least 1 for a real deadline."""
    return 0 if deadline == NEVER else max(1, int((deadline - at) * 1e6))


def from_microseconds(left: int, at: float) -> float:
    """The other direction: the instant `left` microseconds after `at`; 0 is NEVER."""
    return NEVER if left == 0 else at + left * 1e-6
