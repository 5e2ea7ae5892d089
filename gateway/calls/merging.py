"""Request merging: calls with the same parameters and different items share one request to a replica.

Owns the choice of calls for a request, the joined bytes, and the split of the response. The costs of a frame, a parse,
a job and a reply are paid once for all calls of a request. Calls never wait for company: calls are merged when they
arrive together, as the requests of a Stream message do, and calls that a busy native transport hands over at once. A
lone call is sent at once.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.calls.call import Call
from gateway.calls.request import Request
from market_inference.contract.encoding import twins, wireformat
from market_inference.contract.encoding.split import join_items, split_items
from market_inference.contract.generated.exchange_pb2 import Reply
from market_inference.contract.validation.fast import conforms
from runtime.metrics.exemplar import exemplar

# Items of one merged request, so that the first answers do not wait for many others.
MOST_ITEMS = 32
# A call with more bytes of request and answer is sent alone: the bytes cost more than sharing saves.
MOST_BYTES = 64 << 10
# A merged request stays below this expected time on the device, since all items are admitted, or refused, together.
MOST_SECONDS = 0.02
# Deadlines within a merged request differ by less. A call with little more time than that is sent alone.
_DEADLINE_SPREAD_SECONDS = 0.05
_SHORT_SECONDS = 4 * _DEADLINE_SPREAD_SECONDS


@dataclass(slots=True, eq=False)
class Group:
    """Calls that will share a request: the same bytes beside the items, deadlines close to the first call's."""

    rest: bytes
    deadline: float
    calls: list[Call] = field(default_factory=list)
    items: int = 0
    expected_seconds: float = 0.0

    def takes(self, call: Call, seconds: float) -> bool:
        return (
            self.items + len(call.items) <= MOST_ITEMS
            and self.expected_seconds + seconds <= MOST_SECONDS
            and abs(call.deadline - self.deadline) < _DEADLINE_SPREAD_SECONDS
        )


class Merging:
    """The groups of calls arriving together."""

    def __init__(self) -> None:
        self._alike: defaultdict[Hashable, list[Group]] = defaultdict(list)
        self._groups: list[Group] = []

    def try_merge(self, call: Call, expected_seconds: float) -> bool:
        """Put the call into a group; False when the call has to be sent alone."""
        if not _may_share(call):
            return False
        split = split_items(call.method.request, call.raw, MOST_ITEMS)
        if split is None:
            return False
        call.items, call.rest = split
        if not split.items:
            return False
        alike = self._alike[call.method.name, call.client.name, call.priority, split.rest]
        for group in reversed(alike):
            if group.takes(call, expected_seconds):
                break
        else:
            group = Group(split.rest, call.deadline)
            alike.append(group)
            self._groups.append(group)
        group.calls.append(call)
        group.items += len(call.items)
        group.expected_seconds += expected_seconds
        return True

    def close(self) -> list[Group]:
        """The groups, complete, without the calls that were cancelled meanwhile."""
        groups, self._groups = self._groups, []
        self._alike.clear()
        for group in groups:
            group.calls = [call for call in group.calls if not call.finished]
        return [group for group in groups if group.calls]


def _may_share(call: Call) -> bool:
    """Short deadlines, big calls and traced calls are sent alone; so are groups, and calls after a slow check."""
    return (
        call.method.merged
        # The groups of two calls must not become one.
        and not getattr(call.message, "groups", ())
        and call.held_bytes <= MOST_BYTES
        and call.deadline - call.began >= _SHORT_SECONDS
        # A trace shows one request.
        and not (call.traceparent and exemplar(call.traceparent))
        # A merged request is checked as a whole: a single slow check would slow the check of all calls.
        and (call.checked is None or call.checked.raw is call.raw)
    )


def join(group: Group) -> bytes | None:
    """The bytes of the request for all calls of a group; None when the merged request breaks a rule, or may do so.

    Calls that obey every rule together obey every rule alone, since a group has no call without items.
    """
    kind = group.calls[0].method.request
    body = join_items(kind, [item for call in group.calls for item in call.items], group.rest)
    if all(call.checked is not None for call in group.calls):
        return body
    # One reading of the joined bytes costs less than a check of each call's own.
    return body if conforms(kind, body, twins.parse(kind, body), group.rest) else None


def split(request: Request, reply: Reply) -> list[tuple[Call, bytes]]:
    """Each call with its own response, under its own request id; calls with a failed item are left out.

    Raises ValueError when the response does not have an answer for each item.
    """
    kind = request.calls[0].method.response
    found = split_items(kind, reply.response)
    if found is None or len(found.items) != sum(request.item_counts):
        raise ValueError(f"the response to {sum(request.item_counts)} items has another number of answers")
    shared: Any = kind.FromString(found.rest)
    shared.ClearField("request_id")
    rest = shared.SerializeToString()
    number = kind.DESCRIPTOR.fields_by_name["request_id"].number
    failed = set(reply.failed)
    return [
        (call, _response(kind, found.items[places.start : places.stop], rest, number, call.request_id))
        for call, places in request.places()
        if not (call.finished or failed.intersection(places))
    ]


def _response(kind: Any, items: Sequence[memoryview], rest: bytes, number: int, request_id: str) -> bytes:
    return join_items(kind, items, b"".join((rest, *wireformat.pieces(number, request_id.encode()))))
