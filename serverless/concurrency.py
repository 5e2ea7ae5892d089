"""The number of jobs that the worker runs at once: a pure function of the load.

The RunPod SDK calls the concurrency modifier before every poll for jobs. Two habits of the SDK shape the policy. At
full concurrency the SDK sleeps one second before the next poll, so a low concurrency caps short jobs at the same number
per second. And the SDK applies a new concurrency only when no job is in flight, so every change costs a drain.
Therefore concurrency starts high, changes by factors of two, and changes only when the load requires a change.
"""

from dataclasses import dataclass

# With fewer expected seconds of work in the queue, the device may soon be idle.
_SHORT_QUEUE_SECONDS = 0.5
_BUSY_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class Load:
    """`queued_seconds`: work accepted by the engines. `refused`: jobs refused because an engine's queue was full."""

    in_flight: int
    queued_seconds: float
    refused: int


def concurrency(current: int | None, load: Load, *, lowest: int, highest: int) -> int:
    """Double the level while job slots are the bottleneck and the engines are not; halve it when engines refuse work.

    Returns a level in [lowest, highest].
    """
    level = min(max(current or 0, lowest), highest)
    if load.refused:
        return max(level // 2, lowest)
    if load.in_flight >= _BUSY_SHARE * level and load.queued_seconds < _SHORT_QUEUE_SECONDS:
        return min(level * 2, highest)
    return level
