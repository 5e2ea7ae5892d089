"""The wall clock, and when the wall clock last jumped.

Owns the detection of jumps: wall time and monotonic time run apart. Leases and deadlines are wall times, because
several machines share both.
"""

import time
from collections.abc import Callable

JUMP_SECONDS = 15.0


class Clock:
    """Unix times in seconds. `steady_since` is when this process first saw the clock as it runs now."""

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._offset = wall() - monotonic()
        self.steady_since = 0.0

    def now(self) -> float:
        """The time; a jump since the last call moves `steady_since`."""
        now = self._wall()
        offset = now - self._monotonic()
        if abs(offset - self._offset) > JUMP_SECONDS:
            self.steady_since = now
        self._offset = offset
        return now
