"""One request to the replicas: the envelope for one call, or for several merged calls.

Owns the envelope, the record of the attempts, and the withdrawal of items of cancelled calls. The choice of the
calls is merging.py's, the choice of the replica replicas/router.py's.
"""

import asyncio
from collections.abc import Callable, Iterator
from itertools import count
from typing import TYPE_CHECKING, TypeAlias

from gateway.calls.call import Call
from market_inference.contract.generated.exchange_pb2 import (
    PRIORITY_BATCH,
    PRIORITY_INTERACTIVE,
    Envelope,
    Reply,
    Timing,
)

if TYPE_CHECKING:
    from gateway.replicas.replica import Pending, Replica

Answer: TypeAlias = Reply | Exception
"""A replica's reply, or the error in place of a reply."""

_ids = count(1)
_PRIORITIES = {"interactive": PRIORITY_INTERACTIVE, "batch": PRIORITY_BATCH}


def envelope(call: Call) -> Envelope:
    """An envelope on behalf of a call, without body and time-out."""
    return Envelope(
        id=next(_ids),
        request_id=call.request_id,
        client=call.client.name,
        priority=_PRIORITIES[call.priority],
        traceparent=call.traceparent,
    )


class Request:
    """One request on behalf of `calls`, under the first call's id, until the last call's deadline.

    `body` is the serialised message, for the envelope's field `field`; empty where the envelope has the message itself.
    `on_answer` gets the answer, once. `deadline` and `first_sent` are instants of the monotonic clock.
    """

    __slots__ = (
        "_gone",
        "attempts",
        "body",
        "calls",
        "deadline",
        "envelope",
        "field",
        "first_sent",
        "item_counts",
        "losses",
        "method",
        "on_answer",
        "pending",
        "replica",
        "shared_by",
        "size_bytes",
        "suspects",
        "timing",
        "tried",
        "waiting",
    )

    def __init__(
        self, calls: list[Call], on_answer: "Callable[[Request, Answer], None] | None" = None, body: bytes = b""
    ) -> None:
        first = calls[0]
        self.calls = calls
        self.shared_by = len(calls)
        self.item_counts = [len(call.items) for call in calls]
        self.method = first.method.name
        self.deadline = max([call.deadline for call in calls])
        self.size_bytes = sum([call.size_bytes for call in calls])
        self.on_answer = on_answer
        self.envelope = envelope(first)
        self.body, self.field = body, first.method.field
        if len(calls) > 1:
            self.envelope.calls = len(calls)
        self.attempts = 0
        self.losses = 0
        self.replica = ""
        self.first_sent = 0.0
        self.timing: Timing | None = None
        # Replicas without a good answer, and among them the replicas with an internal error.
        self.tried: list[Replica] = []
        self.suspects: list[Replica] = []
        # The attempt under way, or the wait for a ready replica.
        self.pending: Pending | None = None
        self.waiting: asyncio.Task[None] | None = None
        # Calls cancelled since the last message to the replica.
        self._gone: list[Call] = []
        for call in calls:
            call.request = self

    def answer(self, answer: Answer) -> None:
        """Hand the answer to the calls. Later answers are ignored."""
        on_answer, self.on_answer = self.on_answer, None
        self.pending = self.waiting = None
        self.body = b""
        if on_answer is not None:
            on_answer(self, answer)
        # Cut the reference cycle of calls and request, so that no garbage collection is needed.
        self.calls = []

    def leave(self, call: Call) -> None:
        """A call is cancelled: withdraw the items of the call."""
        if not self._gone and self.on_answer is not None:
            # Many calls are cancelled in the same loop turn, as when a stream breaks off: the replica is told once.
            asyncio.get_running_loop().call_soon(self._withdraw)
        self._gone.append(call)

    def _withdraw(self) -> None:
        gone, self._gone = self._gone, []
        if self.on_answer is None:
            return
        if all(call.finished for call in self.calls):
            self._abandon()
        elif self.pending is not None:
            self.pending.withdraw([place for call, places in self.places() if call in gone for place in places])

    def _abandon(self) -> None:
        self.on_answer = None
        if self.waiting is not None:
            self.waiting.cancel()
        if self.pending is not None:
            self.pending.abandon()
        self.pending = self.waiting = None
        self.calls = []

    def places(self) -> Iterator[tuple[Call, range]]:
        """The calls with the places of their items, in the request and in the answer."""
        start = 0
        for call, items in zip(self.calls, self.item_counts, strict=True):
            yield call, range(start, start + items)
            start += items
