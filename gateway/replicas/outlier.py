"""When a replica that fails is left alone, and when it is tried again.

Owns the count of failures in a row, as a pure function of what happened. Who is told, and the clock, are replica.py's.
"""

from dataclasses import dataclass

FAILURES_IN_A_ROW = 5
FIRST_EJECTION_SECONDS = 5.0
LONGEST_EJECTION_SECONDS = 120.0


@dataclass(slots=True)
class Outlier:
    """A replica's record: a circuit breaker that opens after failures in a row and closes with the next good answer."""

    failures: int = 0
    ejections: int = 0
    ejected: bool = False

    def failed(self) -> float:
        """Seconds for which the replica is to be left alone from now; 0 when it stays where it is."""
        self.failures += 1
        if self.ejected or self.failures < FAILURES_IN_A_ROW:
            return 0.0
        self.ejected = True
        self.ejections += 1
        return min(LONGEST_EJECTION_SECONDS, FIRST_EJECTION_SECONDS * 2.0 ** min(self.ejections - 1, 10))

    def returned(self) -> None:
        """The time is over: on probation, so that one more failure ejects it again, for twice as long."""
        self.ejected = False
        self.failures = FAILURES_IN_A_ROW - 1

    def succeeded(self) -> None:
        """A good answer clears the record."""
        self.failures = self.ejections = 0
        self.ejected = False
