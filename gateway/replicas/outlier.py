"""Outlier ejection: a replica that fails several times in a row gets no requests for a while.

Owns the count of failures in a row and the length of an ejection. The clock and the log line are replica.py's.
"""

from dataclasses import dataclass

FAILURES_IN_A_ROW = 5
FIRST_EJECTION_SECONDS = 5.0
LONGEST_EJECTION_SECONDS = 120.0


@dataclass(slots=True)
class Outlier:
    """A replica's record: a circuit breaker that opens after failures in a row and closes at a good answer."""

    failures: int = 0
    ejections: int = 0
    ejected: bool = False

    def failed(self) -> float:
        """Seconds of the ejection that begins now; 0 for no ejection."""
        self.failures += 1
        if self.ejected or self.failures < FAILURES_IN_A_ROW:
            return 0.0
        self.ejected = True
        self.ejections += 1
        return min(LONGEST_EJECTION_SECONDS, FIRST_EJECTION_SECONDS * 2.0 ** min(self.ejections - 1, 10))

    def returned(self) -> None:
        """End an ejection. One more failure ejects the replica again, for twice as long."""
        self.ejected = False
        self.failures = FAILURES_IN_A_ROW - 1

    def succeeded(self) -> None:
        """A good answer clears the record."""
        self.failures = self.ejections = 0
        self.ejected = False
