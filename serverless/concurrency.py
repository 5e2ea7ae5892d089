"""How many jobs the worker takes at once: a pure function of the load.

The SDK asks before every poll for jobs. Two of its ways shape the answer: when as many jobs run as were asked for it
sleeps a second before it looks again, so that a low figure caps short jobs at that many a second; and it applies a new
figure only when nothing is in flight, so that every change costs a drain. Hence: begin high, change by factors, and
only when the load calls for it.
"""

from dataclasses import dataclass

# A queue of fewer expected seconds than this leaves the device hungry.
_HUNGRY_SECONDS = 0.5
_BUSY_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class Load:
    """`queued_seconds` is the work that the engines have accepted, `refused` the jobs that found their queues full."""

    in_flight: int
    queued_seconds: float
    refused: int


def concurrency(current: int | None, load: Load, *, lowest: int, highest: int) -> int:
    """Double while the slots and not the engines are the bottleneck; halve when the engines refuse work.

    The result is within [lowest, highest].
    """
    level = min(max(current or 0, lowest), highest)
    if load.refused:
        return max(level // 2, lowest)
    if load.in_flight >= _BUSY_SHARE * level and load.queued_seconds < _HUNGRY_SECONDS:
        return min(level * 2, highest)
    return level
