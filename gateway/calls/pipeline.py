"""A request whose caller is known: the steps that calls and streams share, in their order, up to its one outcome.

Owns these steps, and that a request is settled once, with its place in flight given back. A request is no task: most
share another's way to a replica and have nothing to wait for by themselves. What has to wait gets a task.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TypeAlias

from gateway.access import cost
from gateway.access.auth import Client
from gateway.access.budget import Allowance, Limits
from gateway.access.in_flight import InFlight
from gateway.calls import intake
from gateway.calls.intake import Checked
from gateway.calls.merging import Group, Joint
from gateway.calls.request import BODIES, Request
from gateway.calls.status import Status
from gateway.replicas.router import Router
from market_inference.contract.encoding import twins
from market_inference.contract.errors import (
    InvalidRequestError,
    NotImplementedYetError,
    RemoteError,
    ServiceUnavailableError,
)

Outcome: TypeAlias = bytes | BaseException
"""The response's bytes, or why there is none: a ServiceError, CancelledError when the caller has left, or a bug."""
Settle: TypeAlias = Callable[[Outcome], None]


class Backend:
    """What requests are served with: places in flight, budgets, replicas."""

    def __init__(self, in_flight: InFlight, limits: Limits, router: Router, status: Status) -> None:
        self.in_flight = in_flight
        self.limits = limits
        self.router = router
        self.status = status
        self.joint = Joint(router)
        self.draining = False

    def serve(self, request: Request, client: Client, raw: bytes, settle: Settle) -> "Serving | None":
        """Begin to serve a request in its bytes; None when it is settled already. `settle` is told the outcome once."""
        serving = Serving(self, request, client, raw, settle)
        serving.begin()
        return None if serving.settled else serving

    async def charge(self, request: Request, client: Client, allowance: Allowance, units: int) -> None:
        """Take what a request costs from its client's budget. Raises RateLimitedError or QuotaExceededError."""
        request.units = units
        request.remaining = await self.limits.spend(client.name, allowance, units)


class Serving:
    """One request that is being served."""

    __slots__ = (
        "_backend",
        "_checked",
        "_client",
        "_entered",
        "_group",
        "_raw",
        "_settle",
        "_task",
        "items",
        "request",
    )

    def __init__(self, backend: Backend, request: Request, client: Client, raw: bytes, settle: Settle) -> None:
        self.request = request
        self._raw = raw
        # Where it shares a request with others: its items, each as its own bytes.
        self.items: Sequence[memoryview] = ()
        self._group: Group | None = None
        self._checked: Checked | None = None
        self._backend = backend
        self._client = client
        self._settle: Settle | None = settle
        self._entered = False
        self._task: asyncio.Task[bytes | None] | None = None

    @property
    def settled(self) -> bool:
        return self._settle is None

    def settle(self, outcome: Outcome) -> None:
        """It has come to this; what comes later is nothing to anybody."""
        settle, self._settle = self._settle, None
        # Nothing that it refers to may refer to it, or only the collector would find them.
        self._group = self._task = None
        if settle is not None:
            if self._entered:
                self._backend.in_flight.leave(self._client.name)
            settle(outcome)

    def cancel(self) -> None:
        """Its caller has left."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            return
        if self._group is not None:
            self._backend.joint.left(self._group, self)
        self.settle(asyncio.CancelledError())

    def begin(self) -> None:
        request, backend = self.request, self._backend
        request.cost = len(self._raw)
        try:
            if backend.draining and request.method.name in BODIES:
                raise ServiceUnavailableError("the gateway is draining", retry_after=0.5)
            backend.in_flight.enter(self._client.name)
            self._entered = True
            if (allowance := backend.limits.allowance(self._client)) is not None:
                self._spawn(self._paid(allowance))
            elif not self._joins():
                self._spawn(self._alone())
        except Exception as error:  # noqa: BLE001 -- a bug is an outcome, too
            self.settle(error)

    def _spawn(self, work: Coroutine[None, None, bytes | None]) -> None:
        self._task = asyncio.get_running_loop().create_task(work)
        # A callback, since a task that is cancelled before its first step runs none of its own code.
        self._task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[bytes | None]) -> None:
        if task.cancelled():
            self.settle(asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            self.settle(error)
        elif (response := task.result()) is not None:
            self.settle(response)

    async def _paid(self, allowance: Allowance) -> bytes | None:
        """For a client with a budget; None when it has gone on with others. Raises ServiceError."""
        request, charge = self.request, self._backend.charge
        try:
            checked = self._checked = intake.check(request.method, self._raw)
        except InvalidRequestError:
            # Mistakes cost too, or sending them would be free.
            await charge(request, self._client, allowance, cost.of_bytes(request.cost))
            raise
        await charge(request, self._client, allowance, cost.units(checked.message))
        # What had to be looked at closely would only keep others from being checked together.
        return None if checked.raw is self._raw and self._joins() else await self._alone()

    def _joins(self) -> bool:
        """Whether it goes on with others that ask the same: they settle it, or send it alone."""
        kind, joint = self.request.method.request, self._backend.joint
        if kind not in twins.ITEMS or not joint.welcomes(self.request):
            return False
        split = twins.split(kind, self._raw)
        if split is None or not split.items:
            return False
        self.items = split.items
        self._group = joint.take(self, split.rest)
        return True

    def send_alone(self) -> None:
        """Nothing came of going with others, which was nobody's failure to answer."""
        self._group = None
        self.request.begin_again()
        self._spawn(self._alone())

    async def _alone(self) -> bytes:
        """Ask a replica. Raises ServiceError."""
        request, router = self.request, self._backend.router
        checked = self._checked or intake.check(request.method, self._raw)
        name = request.method.name
        if name == "GetStatus":
            return await self._backend.status.answer(request)
        if name not in BODIES:
            raise NotImplementedYetError(f"{name} is not served by this version")
        envelope = router.envelope(request)
        setattr(envelope, BODIES[name], checked.raw)
        for refusal in checked.refused:
            envelope.refused.add(
                list=refusal.list_name, index=refusal.index, status=refusal.error.status(request.request_id)
            )
        reply = await router.ask(request, envelope)
        request.answered(reply.timing)
        if reply.HasField("error"):
            raise RemoteError(reply.error)
        return reply.response
