"""Which replica serves a request, and what happens when it is lost on the way.

Owns the choice, the resends and their budget. A replica's connection is replica.py's.
"""

import asyncio
import random
from collections.abc import Sequence
from itertools import count

from gateway.replica import Replica, ReplicaLostError
from gateway.request import Request
from market.inference.v1 import exchange_pb2
from wire import deadline
from wire.errors import DeadlineExceededError, DrainingError, ServiceUnavailableError, reason_of

# A request waits this long for a replica to become ready before it is told that there is none.
PATIENCE_SECONDS = 2.0
ATTEMPTS = 4
_SWEEP_SECONDS = 0.05
_PRIORITIES = {"interactive": exchange_pb2.PRIORITY_INTERACTIVE, "batch": exchange_pb2.PRIORITY_BATCH}


def choose(first: Replica, second: Replica) -> Replica:
    """The one with less work: what its queue reported, and what is on its way there (seconds).

    Source: Mitzenmacher, The Power of Two Choices in Randomized Load Balancing (2001).
    """
    return min(first, second, key=lambda replica: replica.queued_seconds + replica.outstanding)


class ResendBudget:
    """Resends may follow a burst of losses, but not multiply a lasting overload: each request earns a fifth of one."""

    def __init__(self, most: float = 1000.0, earned: float = 0.2) -> None:
        self._most = self._left = most
        self._earned = earned

    def earn(self) -> None:
        self._left = min(self._most, self._left + self._earned)

    def spend(self) -> bool:
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Prices:
    """Expected device seconds of a request from its bytes: a running mean per method, learnt from replies."""

    def __init__(self) -> None:
        self._per_byte: dict[str, float] = {}

    def estimate(self, method: str, size: int) -> float:
        return self._per_byte.get(method, 1e-6) * size

    def learn(self, method: str, size: int, seconds: float) -> None:
        seen = seconds / max(size, 1)
        known = self._per_byte.get(method, seen)
        self._per_byte[method] = known + 0.05 * (seen - known)


class Router:
    """Sends requests to replicas."""

    def __init__(self) -> None:
        self.replicas: list[Replica] = []
        self._ids = count(1)
        self._prices = Prices()
        self._budget = ResendBudget()
        self._changed = asyncio.Event()
        self._sweeper: asyncio.Task[None] | None = None

    def start(self, replicas: Sequence[Replica]) -> None:
        self.replicas = list(replicas)
        for replica in self.replicas:
            replica.start()
        self._sweeper = asyncio.create_task(self._sweep())

    @property
    def ready(self) -> bool:
        return any(replica.ready for replica in self.replicas)

    def changed(self) -> None:
        """A replica's readiness may have changed."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_for_change(self) -> None:
        await self._changed.wait()

    def envelope(self, request: Request) -> exchange_pb2.Envelope:
        """An envelope for the request; the caller fills in its body."""
        return exchange_pb2.Envelope(
            id=next(self._ids),
            timeout_us=deadline.microseconds_left(request.deadline, deadline.now()),
            request_id=request.request_id,
            client=request.client,
            priority=_PRIORITIES[request.priority],
            traceparent=request.traceparent,
        )

    async def ask(self, request: Request, envelope: exchange_pb2.Envelope) -> exchange_pb2.Reply:
        """The reply from whichever replica answers. Every call is pure, so a lost one may be sent again.

        Raises ServiceUnavailableError when no replica answers, DeadlineExceededError when the time is up.
        """
        self._budget.earn()
        lost: Replica | None = None
        while True:
            replica = await self._pick(request, lost)
            request.replica = replica.address
            request.attempts += 1
            envelope.timeout_us = deadline.microseconds_left(request.deadline, deadline.now())
            cost = self._prices.estimate(request.method.name, request.cost)
            try:
                reply = await replica.ask(envelope, cost, request.deadline)
            except ReplicaLostError:
                reply = None
            if reply is not None and not _refused_by_draining(reply):
                if reply.timing.device_us:
                    self._prices.learn(request.method.name, request.cost, reply.timing.device_us * 1e-6)
                return reply
            lost = replica
            if request.attempts >= ATTEMPTS or not self._budget.spend():
                raise ServiceUnavailableError("the replica that served this request was lost", retry_after=0.5)

    async def _pick(self, request: Request, avoid: Replica | None) -> Replica:
        """Power of two choices among the ready replicas; one that just failed only when there is no other."""
        until = min(request.deadline, deadline.now() + PATIENCE_SECONDS)
        while True:
            ready = [replica for replica in self.replicas if replica.ready]
            ready = [replica for replica in ready if replica is not avoid] or ready
            if len(ready) == 1:
                return ready[0]
            if ready:
                return choose(*random.sample(ready, 2))
            if (left := until - deadline.now()) <= 0:
                if until == request.deadline:
                    raise DeadlineExceededError("the deadline passed while no replica was ready")
                raise ServiceUnavailableError("no inference replica is ready", retry_after=1.0)
            try:
                async with asyncio.timeout(left):
                    await self.wait_for_change()
            except TimeoutError:
                continue

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            at = deadline.now()
            for replica in self.replicas:
                replica.expire(at)

    async def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        await asyncio.gather(*(replica.close() for replica in self.replicas))


def _refused_by_draining(reply: exchange_pb2.Reply) -> bool:
    return reply.HasField("error") and reason_of(reply.error) == DrainingError.reason
