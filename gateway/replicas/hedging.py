"""When a second replica is asked, because the first one takes longer than nearly all answers do.

Owns the measure of "longer": the 95th percentile of each method's recent answers. Asking is router.py's.

Source: Dean, Barroso, The Tail at Scale (2013): a hedge after the 95th percentile costs some 5% more work.
"""

import math
from collections import deque

WINDOW = 512
REFRESH = 64


class Latencies:
    """The 95th percentile of the last answers by method, worked out anew every `REFRESH` answers."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[float]] = {}
        self._p95: dict[str, float] = {}
        self._fresh: dict[str, int] = {}

    def learn(self, method: str, seconds: float) -> None:
        seen = self._seen.setdefault(method, deque(maxlen=WINDOW))
        seen.append(seconds)
        self._fresh[method] = self._fresh.get(method, 0) + 1
        if self._fresh[method] >= REFRESH:
            self._fresh[method] = 0
            self._p95[method] = sorted(seen)[int(0.95 * len(seen))]

    def p95(self, method: str) -> float:
        """Seconds; infinite while too few answers are known."""
        return self._p95.get(method, math.inf)
