"""Calls that ask the same of different items and are ready in the same loop turn: one request to a replica.

Owns which calls share a request, and the parting of its answer. Nobody waits for company: a request leaves when the
loop turn ends in which its calls came. So what a frame, a parse, a job, a reply cost is shared by those who come
together, which are many when there is much to do.

Only what concerns all of them alike is told to all. Where anything befell an item, its call is sent again, alone.
"""

import asyncio
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from google.protobuf.message import Message
from google.rpc import code_pb2

from gateway.request import BODIES, Request
from gateway.router import Router
from market.inference.v1 import exchange_pb2
from wire import columns, delimited
from wire.columns import Split
from wire.errors import RemoteError, ServiceError
from wire.exemplar import exemplar

# A request's items, so that its first answers do not wait for many others'.
MOST_ITEMS = 32
# Above so many bytes a call has nothing to gain: what is shared costs less than its own bytes.
MOST_BYTES = 64 << 10
# Deadlines of those who share a request differ by less.
_SLOT_SECONDS = 0.05


class _Member(NamedTuple):
    """A call that shares a request. `answer` resolves to its response, or to None when it has to be sent alone."""

    request: Request
    items: Sequence[bytes]
    answer: asyncio.Future[bytes | None]


@dataclass(slots=True, eq=False)
class _Group:
    """Calls that share a request. `rest` is what they have in common."""

    rest: bytes
    members: list[_Member] = field(default_factory=list)
    items: int = 0
    carrying: asyncio.Task[None] | None = None
    envelope_id: int = 0


class Joint:
    """Joins calls on their way to the router."""

    def __init__(self, router: Router) -> None:
        self._router = router
        # Those that may still grow, by what their members have in common; and all of this loop turn.
        self._growing: dict[Hashable, _Group] = {}
        self._groups: list[_Group] = []

    async def ask(self, request: Request, split: Split) -> bytes | None:
        """The response to a call that shares a request with others; None when it has to be sent alone.

        Raises ServiceError.
        """
        if request.cost > MOST_BYTES or exemplar(request.traceparent) is not None:
            return None  # a trace shows one request
        group = self._group(request, split)
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        group.members.append(_Member(request, split.items, answer))
        group.items += len(split.items)
        try:
            return await answer
        except asyncio.CancelledError:
            self._left(group)
            raise

    def _group(self, request: Request, split: Split) -> _Group:
        slot = request.deadline // _SLOT_SECONDS
        key = (request.method.name, request.client, request.priority, slot, split.rest)
        group = self._growing.get(key)
        if group is None or group.items + len(split.items) > MOST_ITEMS:
            if not self._groups:
                asyncio.get_running_loop().call_soon(self._close)
            group = self._growing[key] = _Group(split.rest)
            self._groups.append(group)
        return group

    def _close(self) -> None:
        """The loop turn is over: send what came together; who is alone goes alone."""
        groups, self._groups = self._groups, []
        self._growing.clear()
        for group in groups:
            waiting = [member for member in group.members if not member.answer.done()]
            if len(waiting) > 1:
                group.members, group.items = waiting, sum(len(member.items) for member in waiting)
                group.carrying = asyncio.create_task(self._carry(group))
            else:
                _send_alone(waiting)

    async def _carry(self, group: _Group) -> None:
        try:
            await self._send(group)
        finally:
            # After a bug in here, which the event loop logs, too.
            _send_alone(group.members)

    async def _send(self, group: _Group) -> None:
        request = _request(group.members)
        kind = request.method.request
        envelope = self._router.envelope(request)
        group.envelope_id = envelope.id
        envelope.calls = len(group.members)
        setattr(envelope, BODIES[request.method.name], _joined(kind, group))
        try:
            reply = await self._router.ask(request, envelope)
        except ServiceError as error:
            _fail(group.members, error)
            return
        for member in group.members:
            member.request.shared(request, reply.timing, len(group.members))
        if not reply.HasField("error"):
            _part(group, request.method.response, reply)
        elif reply.error.code != code_pb2.INVALID_ARGUMENT:  # which names items by their places
            _fail(group.members, RemoteError(reply.error))

    def _left(self, group: _Group) -> None:
        """A member has gone: nobody need compute its items any more."""
        if group.carrying is None:
            return
        if all(member.answer.done() for member in group.members):
            group.carrying.cancel()
            return
        gone: list[int] = []
        place = 0
        for member in group.members:
            if member.answer.cancelled():
                gone += range(place, place + len(member.items))
            place += len(member.items)
        self._router.withdraw(group.envelope_id, gone)


def _request(members: Sequence[_Member]) -> Request:
    """The request that stands for all of them, until the last one's deadline, under the first one's id."""
    first = members[0].request
    return Request(
        method=first.method,
        request_id=first.request_id,
        began=first.began,
        deadline=max(member.request.deadline for member in members),
        priority=first.priority,
        client=first.client,
        cost=sum(member.request.cost for member in members),
    )


def _joined(kind: type[Message], group: _Group) -> bytes:
    number = kind.DESCRIPTOR.fields_by_name[columns.ITEMS[kind][1]].number
    pieces = [piece for member in group.members for item in member.items for piece in _item(number, item)]
    return b"".join((*pieces, group.rest))


def _item(number: int, item: bytes) -> tuple[bytes, bytes]:
    return delimited.head(number, len(item)), item


def _part(group: _Group, kind: type[Message], reply: exchange_pb2.Reply) -> None:
    """Give each member its items' part of the response, under its own request id."""
    twin, name = columns.ITEMS[kind]
    response = twin.FromString(reply.response)
    items = list(getattr(response, name))
    if len(items) != group.items:
        raise ValueError(f"{len(items)} answers to {group.items} items")
    response.ClearField(name)
    response.ClearField("request_id")
    rest = response.SerializeToString()
    fields = kind.DESCRIPTOR.fields_by_name
    number, id_number = fields[name].number, fields["request_id"].number
    failed, place = set(reply.failed), 0
    for member in group.members:
        places = range(place, place + len(member.items))
        place = places.stop
        if member.answer.done() or not failed.isdisjoint(places):
            continue
        pieces = [piece for at in places for piece in _item(number, items[at])]
        pieces += (rest, *_item(id_number, member.request.request_id.encode()))
        member.answer.set_result(b"".join(pieces))


def _fail(members: Sequence[_Member], error: ServiceError) -> None:
    for member in members:
        if not member.answer.done():
            member.answer.set_exception(error)


def _send_alone(members: Sequence[_Member]) -> None:
    for member in members:
        if not member.answer.done():
            member.answer.set_result(None)
