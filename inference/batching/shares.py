"""Fair shares between clients: the waiting work of each client, and the turn of a client's next work.

Owns the per-client accounts of one engine's queue: waiting seconds and start-time fair queueing (Goyal, Vin, Cheng
1996), a client's next item starts at the end of the client's last item. A client with a large backlog therefore
delays its own next item and not the first item of another client. The clock of the queue is the start of the work in
service: in an overload the clock falls behind the real time, so that new work of a light client does not stand behind
everything that heavy clients brought before. All durations are expected device seconds.
"""

from collections import defaultdict

from inference.batching.job import PATIENCE

# By priority: the priorities of the work that new work waits for.
_AHEAD = {"interactive": ("interactive",), "batch": ("interactive", "batch")}
# Accounts of clients without waiting work are kept until there are so many.
_MOST_ACCOUNTS = 4096


class Shares:
    """The accounts of one queue. `seconds` of work are added at admission and removed when the work leaves."""

    def __init__(self) -> None:
        self._waiting: dict[str, defaultdict[str, float]] = {priority: defaultdict(float) for priority in PATIENCE}
        self._totals = dict.fromkeys(PATIENCE, 0.0)
        # Seconds waiting, of all clients and priorities.
        self.total = 0.0
        # Instant by client: the fair share has then served all of the client's work.
        self._finish: dict[str, float] = {}
        # The start of the latest work in service. The real time while no work waits.
        self._clock = 0.0

    @property
    def clients(self) -> int:
        """How many clients have waiting work."""
        return max(map(len, self._waiting.values()))

    def alone(self, client: str) -> bool:
        """Whether no other client has waiting work."""
        return all(waiting.keys() <= {client} for waiting in self._waiting.values())

    def ahead(self, client: str, priority: str, seconds: float) -> float:
        """Seconds of waiting work that precede new work of `seconds`.

        The client's own backlog counts whole. The backlog of another client counts up to the client's own, new work
        included: fair queueing serves the two side by side. Interactive work does not wait for batch work.
        """
        found = 0.0
        for level in _AHEAD[priority]:
            waiting = self._waiting[level]
            own = waiting.get(client, 0.0)
            bound = own + seconds
            for other in waiting.values():
                found += other if other < bound else bound
            # The loop has counted the client's own backlog once, as another client's.
        return found

    def fits(self, client: str, priority: str, seconds: float, running: float, limit: float) -> bool:
        """Whether the queue, or the client's fair share of a full queue, has room for new work of `seconds`.

        `running`: seconds until the device ends its present batch. `limit`: seconds that the queue may hold.
        """
        levels = _AHEAD[priority]
        if sum(self._totals[level] for level in levels) + running + seconds <= limit:
            return True
        own = sum(self._waiting[level].get(client, 0.0) for level in levels)
        others = {name for level in levels for name in self._waiting[level]} - {client}
        return own + seconds <= limit / (len(others) + 1)

    def add(self, client: str, priority: str, seconds: float, at: float) -> float:
        """Add admitted work; returns the instant of the work's turn in the client's fair share."""
        start = max(self.clock(at), self._finish.get(client, 0.0))
        self._waiting[priority][client] += seconds
        self._totals[priority] += seconds
        self.total += seconds
        self._finish[client] = start + seconds
        if len(self._finish) > _MOST_ACCOUNTS:
            self._finish = {name: finish for name, finish in self._finish.items() if finish > self._clock}
        return start

    def clock(self, at: float) -> float:
        """The start of the work in service at the instant `at`."""
        if not self.total:
            self._clock = at
        return self._clock

    def serve(self, start: float, at: float) -> None:
        """Note the start of work that leaves the queue to run."""
        self._clock = min(at, max(self._clock, start))

    def remove(self, client: str, priority: str, seconds: float) -> None:
        """Remove work that leaves the queue, to run or not."""
        waiting = self._waiting[priority]
        remaining = waiting.get(client, 0.0) - seconds
        # Sums of floats do not return to 0 exactly.
        if remaining > 1e-9:
            waiting[client] = remaining
        else:
            waiting.pop(client, None)
        change = -seconds if waiting else -self._totals[priority]
        self._totals[priority] += change
        self.total = self.total + change if self.total + change > 1e-9 else 0.0

    def put_back(self, client: str, priority: str, seconds: float) -> None:
        """Return removed work to the queue, at the same place in the client's share."""
        self._waiting[priority][client] += seconds
        self._totals[priority] += seconds
        self.total += seconds

    def correct(self, client: str, seconds: float) -> None:
        """Charge a client for work with `seconds` more than expected; negative for work without a run."""
        if client in self._finish:
            self._finish[client] += seconds

    def restart(self, client: str, finish: float) -> None:
        """Set the end of a client's backlog in its fair share, after a new estimate of the backlog."""
        self._finish[client] = finish

    def clear(self) -> None:
        for waiting in self._waiting.values():
            waiting.clear()
        self._totals = dict.fromkeys(PATIENCE, 0.0)
        self.total = 0.0
