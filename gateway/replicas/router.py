"""The choice of the replica for a request, and the next attempt when a replica fails.

Owns the choice, the resends with their budget, and the set of replicas that discovery finds. A replica's connection is
replica.py's.
"""

import asyncio
import logging
import math
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from google.rpc import code_pb2

from gateway.calls.request import Answer, Request
from gateway.replicas.discovery import Discovery, DiscoveryError, Endpoint
from gateway.replicas.replica import Replica, ReplicaLostError
from market_inference.contract import deadline
from market_inference.contract.errors import (
    DeadlineExceededError,
    DrainingError,
    OverloadedError,
    ServiceUnavailableError,
    reason_of,
)
from market_inference.contract.generated import exchange_pb2
from runtime.logs import fields
from runtime.tasks import Tasks
from runtime.tls import TlsError

log = logging.getLogger(__name__)

# A request waits this long for a replica to become ready.
PATIENCE_SECONDS = 2.0
ATTEMPTS = 4
# A request in flight on two lost replicas may be the cause of both losses: a third replica does not get the request.
LOSSES = 2
# A replica has failed when it is silent for this long until the deadline; a shorter deadline is no evidence.
SILENCE_SECONDS = 1.0
# Time for a new connection to a known replica; after that the old connection stays.
RENEWAL_SECONDS = 30.0
_SWEEP_SECONDS = 0.05
_MOST_RESENDS, _EARNED_RESENDS = 1000.0, 0.2
# Errors of a single replica, perhaps: a model did not load, or the replica has a fault.
_ELSEWHERE = {code_pb2.UNAVAILABLE, code_pb2.INTERNAL}


def choose(first: Replica, second: Replica, at: float) -> Replica:
    """The replica with less expected work ahead.

    Source: Mitzenmacher, The Power of Two Choices in Randomized Load Balancing (2001).
    """
    return first if first.busy(at) <= second.busy(at) else second


class ResendBudget:
    """Limits resends, so that lasting losses do not multiply the load: each request earns a fifth of a resend."""

    def __init__(self) -> None:
        self._left = _MOST_RESENDS

    def earn(self) -> None:
        self._left = min(_MOST_RESENDS, self._left + _EARNED_RESENDS)

    def spend(self) -> bool:
        if self._left < 1:
            return False
        self._left -= 1
        return True


class ExpectedSeconds:
    """Expected seconds of a request on the device, from its bytes: a running mean per method, learnt from replies."""

    def __init__(self) -> None:
        self._per_byte: dict[str, float] = {}

    def estimate(self, method: str, size_bytes: int) -> float:
        return self._per_byte.get(method, 1e-6) * size_bytes

    def learn(self, method: str, size_bytes: int, seconds: float) -> None:
        seen = seconds / max(size_bytes, 1)
        known = self._per_byte.get(method, seen)
        self._per_byte[method] = known + 0.05 * (seen - known)


class Router:
    """Sends requests to replicas."""

    def __init__(self) -> None:
        self.replicas: list[Replica] = []
        # Those that new requests go to.
        self.takes_work: list[Replica] = []
        # Connected replicas beside `replicas`: old connections with requests in flight, and new connections on trial.
        self._beside: set[Replica] = set()
        self.expected = ExpectedSeconds()
        self._budget = ResendBudget()
        self._changed = asyncio.Event()
        self._tasks = Tasks()

    def start(self) -> None:
        self._tasks.spawn(self._sweep())

    def follow(self, discovery: Discovery, interval: float, connect: Callable[[Endpoint], Replica]) -> None:
        """Keep the replicas equal to what discovery finds, every `interval` seconds."""
        self._tasks.spawn(self._follow(discovery, interval, connect))

    async def _follow(self, discovery: Discovery, interval: float, connect: Callable[[Endpoint], Replica]) -> None:
        while True:
            try:
                self.reconcile(await discovery.look(), connect)
            except (DiscoveryError, TlsError) as error:
                # The known replicas stay: without a name server the gateway goes on.
                log.warning("discovery failed", extra=fields(reason=str(error), replicas=len(self.replicas)))
            except Exception:  # whatever a look-up brings, the next one follows
                log.exception("discovery failed", extra=fields(replicas=len(self.replicas)))
            await asyncio.sleep(interval)

    def reconcile(self, endpoints: Sequence[Endpoint], connect: Callable[[Endpoint], Replica]) -> None:
        """Connect to new endpoints; leave old endpoints once the requests in flight are answered."""
        wanted, known = set(endpoints), {replica.endpoint for replica in self.replicas}
        if wanted == known:
            return
        gone = [replica for replica in self.replicas if replica.endpoint not in wanted]
        new = [connect(endpoint) for endpoint in endpoints if endpoint not in known]
        self.replicas = [replica for replica in self.replicas if replica.endpoint in wanted] + new
        for replica in new:
            replica.start()
        for replica in gone:
            self._tasks.spawn(self._leave(replica))
        log.info("replicas", extra=fields(addresses=[replica.address for replica in self.replicas]))
        self.changed()

    def renew(self, connect: Callable[[Endpoint], Replica]) -> None:
        """Connect again to every replica, with changed certificates, then close the old connections."""
        for replica in self.replicas:
            self._tasks.spawn(self._renew(replica, connect))

    async def _renew(self, old: Replica, connect: Callable[[Endpoint], Replica]) -> None:
        try:
            new = connect(old.endpoint)
        except TlsError as error:
            log.error("replica not reconnected", extra=fields(replica=old.address, reason=str(error)))  # noqa: TRY400
            return
        new.start()
        self._beside.add(new)
        try:
            async with asyncio.timeout(RENEWAL_SECONDS):
                while not new.ready:
                    await self.wait_for_change()
        except TimeoutError:
            log.error("replica not reconnected", extra=fields(replica=old.address, reason="not ready"))  # noqa: TRY400
            await self._leave(new)
            return
        self._beside.discard(new)
        if old not in self.replicas:
            await self._leave(new)
            return
        self.replicas = [new if replica is old else replica for replica in self.replicas]
        self.changed()
        await self._leave(old)

    async def _leave(self, replica: Replica) -> None:
        self._beside.add(replica)
        await replica.leave()
        self._beside.discard(replica)

    def changed(self) -> None:
        """A replica's readiness may have changed."""
        ready = [replica for replica in self.replicas if replica.ready]
        # Ejected replicas serve when there is no other: a bad replica is better than none.
        self.takes_work = [replica for replica in ready if not replica.outlier.ejected] or ready
        self._changed.set()
        self._changed = asyncio.Event()

    def next_change(self) -> asyncio.Event:
        """Set at the next change. Take the event before you look at the replicas, so that no change is missed."""
        return self._changed

    async def wait_for_change(self) -> None:
        await self._changed.wait()

    def send(self, request: Request) -> None:
        """Send a request to a replica; request.answer() gets the answer.

        The answer is a reply, ServiceUnavailableError when no replica answers, OverloadedError when all are full, or
        DeadlineExceededError. Every call is pure, so a request may be sent again after the loss of a replica.
        """
        self._budget.earn()
        self._dispatch(request)

    def _dispatch(self, request: Request) -> None:
        """Send to a replica now, or as soon as a replica takes work."""
        try:
            replica = self._choose(request.tried)
        except OverloadedError as error:
            request.answer(error)
            return
        if replica is not None:
            self._attempt(request, replica)
        else:
            request.waiting = self._tasks.spawn(self._dispatch_later(request))

    async def _dispatch_later(self, request: Request) -> None:
        try:
            replica = await self.pick(request.deadline, request.tried)
        except (OverloadedError, ServiceUnavailableError, DeadlineExceededError) as error:
            request.answer(error)
            return
        request.waiting = None
        self._attempt(request, replica)

    def _attempt(self, request: Request, replica: Replica) -> None:
        request.replica = replica.address
        if not request.attempts:
            request.first_sent = deadline.now()
        request.attempts += 1
        seconds = self.expected.estimate(request.method.name, request.size_bytes)
        on_answer = partial(self._answered, request, replica)
        try:
            request.pending = replica.send(
                request.envelope, seconds, request.deadline, on_answer, request.method.field, request.body
            )
        except ReplicaLostError as error:
            on_answer(error)

    def _answered(self, request: Request, replica: Replica, answer: Answer) -> None:
        """After an attempt: make the next attempt, or answer the request."""
        # A replica that has no stream, or that the request was never sent to, has not failed the request.
        sent_at = math.inf if request.pending is None else request.pending.sent_at
        request.pending = None
        if isinstance(answer, DeadlineExceededError):
            if deadline.now() - sent_at >= SILENCE_SECONDS:
                replica.failed()
        elif isinstance(answer, Exception) or _drains(answer):
            request.losses += isinstance(answer, Exception) and sent_at < math.inf
            if self._try_again(request, replica):
                return
            answer = ServiceUnavailableError("the replica that served this request was lost", retry_after=0.5)
        elif answer.HasField("error") and answer.error.code in _ELSEWHERE:
            if answer.error.code == code_pb2.INTERNAL:
                request.suspects.append(replica)
            if self._try_again(request, replica, elsewhere=True):
                return
        else:
            self._learn(request, replica, answer)
        request.answer(answer)

    def _try_again(self, request: Request, replica: Replica, *, elsewhere: bool = False) -> bool:
        """Send a request again after `replica` gave no good answer; `elsewhere`: only to an untried replica."""
        request.tried.append(replica)
        if request.losses >= LOSSES or request.attempts >= ATTEMPTS:
            return False
        if elsewhere and all(other in request.tried for other in self.takes_work):
            return False
        if not self._budget.spend():
            return False
        self._dispatch(request)
        return True

    def _learn(self, request: Request, replica: Replica, reply: exchange_pb2.Reply) -> None:
        if reply.timing.device_us:
            self.expected.learn(request.method.name, request.size_bytes, reply.timing.device_us * 1e-6)
        replica.succeeded()
        # Another replica could answer: the fault was not the request's.
        for suspect in request.suspects:
            suspect.failed()

    async def pick(self, until: float, avoid: Sequence[Replica] = ()) -> Replica:
        """A ready replica, before `until`; a replica of `avoid` only when there is no other.

        Raises OverloadedError when the replicas are full, ServiceUnavailableError, or DeadlineExceededError.
        """
        patience = min(until, deadline.after(PATIENCE_SECONDS))
        while (replica := self._choose(avoid)) is None:
            left = patience - deadline.now()
            if left <= 0:
                if patience == until:
                    raise DeadlineExceededError("the deadline passed while no replica was ready")
                raise ServiceUnavailableError("no inference replica is ready", retry_after=1.0)
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self.wait_for_change()
        return replica

    def _choose(self, avoid: Sequence[Replica]) -> Replica | None:
        """Power of two choices among the ready replicas; None without a ready replica. Raises OverloadedError."""
        candidates = self.takes_work
        if avoid:
            candidates = [replica for replica in candidates if replica not in avoid] or candidates
        return _not_full(*_two(candidates)) if candidates else None

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            at = deadline.now()
            for replica in (*self.replicas, *self._beside):
                replica.expire(at)

    async def close(self) -> None:
        await self._tasks.cancel()
        await asyncio.gather(*(replica.close() for replica in (*self.replicas, *self._beside)))


def _drains(reply: exchange_pb2.Reply) -> bool:
    return reply.HasField("error") and reason_of(reply.error) == DrainingError.reason


def _two(ready: Sequence[Replica]) -> tuple[Replica, Replica]:
    """Two different replicas at random, or the only replica twice."""
    size = len(ready)
    if size == 1:
        return ready[0], ready[0]
    first = int(random.random() * size)  # noqa: S311 -- spreads load
    return ready[first], ready[(first + 1 + int(random.random() * (size - 1))) % size]  # noqa: S311


def _not_full(first: Replica, second: Replica) -> Replica:
    if first is second:
        chosen = first
    else:
        chosen = choose(first, second, deadline.now())
        if chosen.full:
            chosen = second if chosen is first else first
    if chosen.full:
        raise OverloadedError("the replicas have as much in flight as they may", retry_after=0.1)
    return chosen
