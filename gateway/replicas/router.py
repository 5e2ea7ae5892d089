"""Which replica serves a request, and what happens when it fails on the way.

Owns the choice, the resends and hedges with their budget, and the set of replicas as discovery sees it. A replica's
connection is replica.py's.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Sequence
from itertools import count
from typing import Any

from google.rpc import code_pb2

from gateway.calls.request import Request
from gateway.replicas.discovery import Discovery, DiscoveryError, Endpoint
from gateway.replicas.hedging import Latencies
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
from runtime.tls import TlsError

log = logging.getLogger(__name__)

# A request waits this long for a replica to become ready before it is told that there is none.
PATIENCE_SECONDS = 2.0
ATTEMPTS = 4
# A request that was on two replicas when they were lost may be what kills them: a third is not risked.
LOSSES = 2
# Silence for this long until the deadline counts against a replica; a shorter deadline says nothing of it.
SILENCE_SECONDS = 1.0
# What a new connection to a known replica may take until the old one is kept after all.
RENEWAL_SECONDS = 30.0
_SWEEP_SECONDS = 0.05
_PRIORITIES = {"interactive": exchange_pb2.PRIORITY_INTERACTIVE, "batch": exchange_pb2.PRIORITY_BATCH}
# What another replica may well answer: its model did not load, or the fault is in it and not in the request.
_ELSEWHERE = {code_pb2.UNAVAILABLE, code_pb2.INTERNAL}


def choose(first: Replica, second: Replica, at: float) -> Replica:
    """The one with less work ahead of it.

    Source: Mitzenmacher, The Power of Two Choices in Randomized Load Balancing (2001).
    """
    return first if first.busy(at) <= second.busy(at) else second


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
    """Sends requests to replicas. `hedge` asks a second replica when the first one is unusually late."""

    def __init__(self, *, hedge: bool = False) -> None:
        self.replicas: list[Replica] = []
        self._takes_work: list[Replica] = []
        self._leaving: set[Replica] = set()
        self._ids = count(1)
        self._prices = Prices()
        self._budget = ResendBudget()
        self._latencies = Latencies() if hedge else None
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._spawn(self._sweep())

    def follow(self, discovery: Discovery, interval: float, connect: Callable[[Endpoint], Replica]) -> None:
        """Keep the replicas equal to what discovery finds, looking every `interval` seconds."""
        self._spawn(self._follow(discovery, interval, connect))

    async def _follow(self, discovery: Discovery, interval: float, connect: Callable[[Endpoint], Replica]) -> None:
        while True:
            try:
                self.reconcile(await discovery.look(), connect)
            except (DiscoveryError, TlsError) as error:
                # What was known stays: a name server that is away must not take the replicas with it.
                log.warning("discovery failed", extra=fields(reason=str(error), replicas=len(self.replicas)))
            await asyncio.sleep(interval)

    def reconcile(self, endpoints: Sequence[Endpoint], connect: Callable[[Endpoint], Replica]) -> None:
        """Connect to endpoints that are new; leave those that are gone once their work in flight is done."""
        wanted, known = set(endpoints), {replica.endpoint for replica in self.replicas}
        if wanted == known:
            return
        gone = [replica for replica in self.replicas if replica.endpoint not in wanted]
        new = [connect(endpoint) for endpoint in endpoints if endpoint not in known]
        self.replicas = [replica for replica in self.replicas if replica.endpoint in wanted] + new
        for replica in new:
            replica.start()
        for replica in gone:
            self._spawn(self._leave(replica))
        log.info("replicas", extra=fields(addresses=[replica.address for replica in self.replicas]))
        self.changed()

    def renew(self, connect: Callable[[Endpoint], Replica]) -> None:
        """Connect anew to every replica, with changed certificates; an old connection goes once the new one works."""
        for replica in self.replicas:
            self._spawn(self._renew(replica, connect))

    async def _renew(self, old: Replica, connect: Callable[[Endpoint], Replica]) -> None:
        try:
            new = connect(old.endpoint)
        except TlsError as error:
            log.error("replica not reconnected", extra=fields(replica=old.address, reason=str(error)))  # noqa: TRY400
            return
        new.start()
        self._leaving.add(new)
        try:
            async with asyncio.timeout(RENEWAL_SECONDS):
                while not new.ready:
                    await self.wait_for_change()
        except TimeoutError:
            log.error("replica not reconnected", extra=fields(replica=old.address, reason="not ready"))  # noqa: TRY400
            await self._leave(new)
            return
        self._leaving.discard(new)
        if old not in self.replicas:
            await self._leave(new)
            return
        self.replicas = [new if replica is old else replica for replica in self.replicas]
        self.changed()
        await self._leave(old)

    async def _leave(self, replica: Replica) -> None:
        self._leaving.add(replica)
        await replica.leave()
        self._leaving.discard(replica)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def ready(self) -> bool:
        return bool(self._takes_work)

    def changed(self) -> None:
        """A replica's readiness may have changed."""
        ready = [replica for replica in self.replicas if replica.ready]
        # Ejected ones serve when nobody else can: a bad replica beats none.
        self._takes_work = [replica for replica in ready if not replica.outlier.ejected] or ready
        self._changed.set()
        self._changed = asyncio.Event()

    def next_change(self) -> asyncio.Event:
        """Set at the next change; to be taken before looking, so that none is missed."""
        return self._changed

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

        Raises ServiceUnavailableError when no replica answers, OverloadedError when all are full,
        DeadlineExceededError when the time is up.
        """
        self._budget.earn()
        tried: list[Replica] = []
        suspects: list[Replica] = []
        losses = 0
        while True:
            replica = await self._pick(request, tried)
            reply = await self._send(replica, request, envelope)
            if reply is not None and not (reply.HasField("error") and reply.error.code in _ELSEWHERE):
                self._learn(request, replica, reply, suspects)
                return reply
            tried.append(replica)
            losses += reply is None
            again = losses < LOSSES and request.attempts < ATTEMPTS
            if reply is None or reason_of(reply.error) == DrainingError.reason:
                if again and self._budget.spend():
                    continue
                raise ServiceUnavailableError("the replica that served this request was lost", retry_after=0.5)
            if reply.error.code == code_pb2.INTERNAL:
                suspects.append(replica)
            if not again or all(other in tried for other in self._takes_work) or not self._budget.spend():
                return reply

    def _learn(
        self, request: Request, replica: Replica, reply: exchange_pb2.Reply, suspects: Sequence[Replica]
    ) -> None:
        if reply.timing.device_us:
            self._prices.learn(request.method.name, request.cost, reply.timing.device_us * 1e-6)
        replica.succeeded()
        # What another replica could answer was not the request's fault.
        for suspect in suspects:
            suspect.failed()

    async def _send(
        self, replica: Replica, request: Request, envelope: exchange_pb2.Envelope
    ) -> exchange_pb2.Reply | None:
        """One attempt: the reply, or None when the replica was lost meanwhile."""
        request.replica = replica.address
        began = deadline.now()
        if not request.attempts:
            request.gateway_seconds = began - request.began
        request.attempts += 1
        envelope.timeout_us = deadline.microseconds_left(request.deadline, began)
        cost = self.expected_seconds(request)
        try:
            if self._latencies is None:
                return await replica.ask(envelope, cost, request.deadline)
            reply = await self._hedged(replica, request, envelope, cost, self._latencies)
            self._latencies.learn(request.method.name, deadline.now() - began)
        except ReplicaLostError:
            return None
        except DeadlineExceededError:
            if deadline.now() - began >= SILENCE_SECONDS:
                replica.failed()
            raise
        else:
            return reply

    async def _hedged(
        self, first: Replica, request: Request, envelope: exchange_pb2.Envelope, cost: float, latencies: Latencies
    ) -> exchange_pb2.Reply:
        """The first good reply of two, the second one asked only when the first is later than the 95th percentile."""
        asked = {asyncio.ensure_future(first.ask(envelope, cost, request.deadline))}
        try:
            done, waiting = await asyncio.wait(asked, timeout=min(latencies.p95(request.method.name), 3600.0))
            second = next((replica for replica in self._takes_work if replica is not first), None)
            if not done and second is not None and self._budget.spend():
                request.attempts += 1
                request.hedges += 1
                spare = exchange_pb2.Envelope()
                spare.CopyFrom(envelope)
                spare.timeout_us = deadline.microseconds_left(request.deadline, deadline.now())
                asked.add(asyncio.ensure_future(second.ask(spare, cost, request.deadline)))
            while True:
                done, waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
                good = [task for task in done if task.exception() is None and not task.result().HasField("error")]
                if good or not waiting:
                    return (good or list(done))[0].result()
                # Not `asked -= done`: the last one to end decides, whatever it says.
                asked = waiting
        finally:
            for task in asked:
                task.cancel()

    def expected_seconds(self, request: Request) -> float:
        """Of the device, as learnt from replies to its method."""
        return self._prices.estimate(request.method.name, request.cost)

    def withdraw(self, envelope_id: int, items: Sequence[int]) -> None:
        """Nobody waits any more for these items of a request in flight."""
        for replica in (*self.replicas, *self._leaving):
            replica.withdraw(envelope_id, items)

    async def pick(self, request: Request) -> Replica:
        """A replica for something that will stay there. Raises ServiceUnavailableError or DeadlineExceededError."""
        replica = await self._pick(request, ())
        request.replica = replica.address
        return replica

    async def _pick(self, request: Request, avoid: Sequence[Replica]) -> Replica:
        """Power of two choices among the ready replicas; one that just failed only when there is no other."""
        until = min(request.deadline, deadline.now() + PATIENCE_SECONDS)
        while True:
            ready = self._takes_work
            if avoid:
                ready = [replica for replica in ready if replica not in avoid] or ready
            if ready:
                return _not_full(*_two(ready))
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
            for replica in (*self.replicas, *self._leaving):
                replica.expire(at)

    async def close(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(replica.close() for replica in (*self.replicas, *self._leaving)))


def _two(ready: Sequence[Replica]) -> tuple[Replica, Replica]:
    """Two different ones at random, or the only one twice."""
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
