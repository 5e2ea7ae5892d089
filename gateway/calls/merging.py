"""Calls that ask the same of different items and are ready in the same loop turn: one request to a replica.

Owns which calls share a request, that it is checked as one, and the parting of its answer. Nobody waits for company: a
request leaves when the loop turn ends in which its calls came. So what a frame, a parse, a job, a reply cost is shared
by those who come together, which are many when there is much to do.

Only what concerns all of them alike is told to all. Where anything befell an item, its call is sent again, alone: once.
"""

import asyncio
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from google.protobuf.message import Message
from google.rpc import code_pb2

from gateway.calls.request import BODIES, Request
from gateway.replicas.router import Router
from market_inference.contract.encoding import twins, wireformat
from market_inference.contract.errors import RemoteError, ServiceError
from market_inference.contract.generated import exchange_pb2
from market_inference.contract.validation.fast import conforms
from runtime.metrics.exemplar import exemplar

# A request's items, so that its first answers do not wait for many others'.
MOST_ITEMS = 32
# Above so many bytes a call has nothing to gain: what is shared costs less than its own bytes.
MOST_BYTES = 64 << 10
# Nor has one whose items take long to compute: they would be admitted, or refused, together.
MOST_SECONDS = 0.02
# Deadlines of those who share a request differ by less; who has little more left than that goes alone.
_APART_SECONDS = 0.05
_HURRY_SECONDS = 4 * _APART_SECONDS
# What may be an item's fault, or names items by their places.
_OF_AN_ITEM = {code_pb2.INVALID_ARGUMENT, code_pb2.INTERNAL}


class Member(Protocol):
    """A call that may share a request. Its items, at least one, may yet break a rule."""

    request: Request
    items: Sequence[memoryview]

    @property
    def settled(self) -> bool: ...

    def settle(self, outcome: bytes | BaseException) -> None:
        """Its response is there, or it has failed with the rest."""
        ...

    def send_alone(self) -> None:
        """Nothing came of it: it is on its own."""
        ...


@dataclass(slots=True, eq=False)
class Group:
    """Calls that share a request. `rest` is what they have in common, `until` the first one's deadline."""

    rest: bytes
    until: float
    members: list[Member] = field(default_factory=list)
    items: int = 0
    # Of the device, as expected.
    seconds: float = 0.0
    # Once it is closed, with more than one member; and those who have left since, until the replica is told.
    carrying: asyncio.Task[None] | None = None
    gone: set[Member] = field(default_factory=set)
    request: Request | None = None
    envelope_id: int = 0

    def takes(self, until: float, items: int, seconds: float) -> bool:
        """Whether there is room for so much more, with this deadline."""
        return (
            self.items + items <= MOST_ITEMS
            and self.seconds + seconds <= MOST_SECONDS
            and abs(until - self.until) < _APART_SECONDS
        )

    @property
    def waiting(self) -> list[Member]:
        return [member for member in self.members if not member.settled]

    def placed(self) -> Iterator[tuple[Member, range]]:
        """Each member, with the places of its items in the request and in its answer."""
        start = 0
        for member in self.members:
            places = range(start, start + len(member.items))
            start = places.stop
            yield member, places


class Joint:
    """Joins calls on their way to the router."""

    def __init__(self, router: Router) -> None:
        self._router = router
        # Those of this loop turn, by what their members have in common, and all.
        self._growing: defaultdict[Hashable, list[Group]] = defaultdict(list)
        self._groups: list[Group] = []

    @staticmethod
    def welcomes(request: Request) -> bool:
        """Whether a call may share a request: one in a hurry, a big one and a traced one are better off alone."""
        hurries = request.deadline - request.began < _HURRY_SECONDS
        # As for the last of these: a trace shows one request.
        return not (hurries or request.cost > MOST_BYTES or (request.traceparent and exemplar(request.traceparent)))

    def take(self, member: Member, rest: bytes) -> Group:
        """Let a call share a request with others that have the same `rest`."""
        request = member.request
        items, seconds = len(member.items), self._router.expected_seconds(request)
        alike = self._growing[request.method.name, request.client, request.priority, rest]
        for group in reversed(alike):
            if group.takes(request.deadline, items, seconds):
                break
        else:
            if not self._groups:
                asyncio.get_running_loop().call_soon(self._close)
            group = Group(rest, request.deadline)
            alike.append(group)
            self._groups.append(group)
        group.members.append(member)
        group.items += items
        group.seconds += seconds
        return group

    def left(self, group: Group, member: Member) -> None:
        """A member is about to be settled, as its caller has left: nobody need compute its items any more."""
        if group.request is not None:
            member.request.sent_as(group.request)
        if group.carrying is None:
            return
        if not group.gone:
            # Many leave together, as when a stream breaks off.
            asyncio.get_running_loop().call_soon(self._withdraw, group, group.carrying)
        group.gone.add(member)

    def _withdraw(self, group: Group, carrying: asyncio.Task[None]) -> None:
        gone, group.gone = group.gone, set()
        if group.waiting:
            self._router.withdraw(
                group.envelope_id, [place for member, places in group.placed() if member in gone for place in places]
            )
        else:
            carrying.cancel()

    def _close(self) -> None:
        """The loop turn is over: send what came together; who is alone goes alone."""
        groups, self._groups = self._groups, []
        self._growing.clear()
        for group in groups:
            group.members = group.waiting
            if len(group.members) > 1:
                group.carrying = asyncio.create_task(self._carry(group))
            else:
                _send_alone(group.members)

    async def _carry(self, group: Group) -> None:
        try:
            if body := _body(group):
                await self._send(group, body)
        finally:
            # After a bug in here, which the event loop logs, too.
            _send_alone(group.waiting)

    async def _send(self, group: Group, body: bytes) -> None:
        request = group.request = _request(group.members)
        envelope = self._router.envelope(request)
        group.envelope_id = envelope.id
        envelope.calls = len(group.members)
        setattr(envelope, BODIES[request.method.name], body)
        try:
            reply = await self._router.ask(request, envelope)
        except ServiceError as error:
            _fail(group, error)
            return
        finally:
            for member in group.members:
                member.request.sent_as(request)
        for member in group.members:
            member.request.answered(reply.timing, len(group.members))
        if not reply.HasField("error"):
            _part(group, request.method.response, reply)
        elif reply.error.code not in _OF_AN_ITEM:
            _fail(group, RemoteError(reply.error))


def _body(group: Group) -> bytes | None:
    """The request for all of them; None when it breaks a rule, or may do so.

    What obeys together obeys alone, but for the rule that there has to be an item.
    """
    kind = group.members[0].request.method.request
    items = [item for member in group.members for item in member.items]
    group.items = len(items)
    body = twins.join(kind, items, group.rest)
    return body if conforms(kind, body, group.rest) else None


def _request(members: Sequence[Member]) -> Request:
    """The request that stands for all of them, until the last one's deadline, under the first one's id."""
    first = members[0].request
    return Request(
        method=first.method,
        request_id=first.request_id,
        began=first.began,
        deadline=max(member.request.deadline for member in members),
        priority=first.priority,
        traceparent=first.traceparent,
        client=first.client,
        cost=sum(member.request.cost for member in members),
    )


def _part(group: Group, kind: type[Message], reply: exchange_pb2.Reply) -> None:
    """Give each member its items' part of the response, under its own request id."""
    split = twins.split(kind, reply.response)
    if split is None or len(split.items) != group.items:
        raise ValueError(f"the answers to {group.items} items are not there")
    others: Any = kind.FromString(split.rest)
    others.ClearField("request_id")
    rest = others.SerializeToString()
    number = kind.DESCRIPTOR.fields_by_name["request_id"].number
    failed = set(reply.failed)
    for member, places in group.placed():
        if not (member.settled or failed.intersection(places)):
            own = wireformat.field(number, member.request.request_id.encode())
            member.settle(twins.join(kind, split.items[places.start : places.stop], b"".join((rest, *own))))


def _fail(group: Group, error: ServiceError) -> None:
    for member in group.waiting:
        member.settle(error)


def _send_alone(members: Sequence[Member]) -> None:
    for member in members:
        member.send_alone()
