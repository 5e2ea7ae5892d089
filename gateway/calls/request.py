"""One request to the replicas: the envelope for one call, or for several merged calls.

Owns the envelope, the record of the attempts, and the withdrawal of items of cancelled calls. The choice of the
calls is merging.py's, the choice of the replica replicas/router.py's.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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
from market_inference.contract.methods import Method

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


@dataclass(slots=True, eq=False, repr=False)
class Request:
    """One request on behalf of `calls`, under the first call's id, until the last call's deadline.

    `body` is the serialised message, for the envelope's field `field`; empty where the envelope has the message itself.
    `on_answer` gets the answer, once. `deadline` and `first_sent` are instants of the monotonic clock.
    """

    calls: list[Call]
    on_answer: "Callable[[Request, Answer], None] | None" = None
    body: bytes = b""
    envelope: Envelope = field(init=False)
    method: Method = field(init=False)
    deadline: float = field(init=False)
    size_bytes: int = field(init=False)
    item_counts: list[int] = field(init=False)
    shared_by: int = field(init=False)
    attempts: int = 0
    losses: int = 0
    replica: str = ""
    first_sent: float = 0.0
    timing: Timing | None = None
    # Replicas without a good answer, and among them the replicas with an internal error.
    tried: "list[Replica]" = field(default_factory=list)
    suspects: "list[Replica]" = field(default_factory=list)
    # The attempt under way, or the wait for a ready replica.
    pending: "Pending | None" = None
    waiting: asyncio.Task[None] | None = None
    # Calls cancelled since the last message to the replica.
    _gone: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        calls = self.calls
        self.method, self.envelope = calls[0].method, envelope(calls[0])
        self.shared_by = len(calls)
        if len(calls) > 1:
            self.envelope.calls = len(calls)
        self.item_counts = [len(call.items) for call in calls]
        self.deadline = max([call.deadline for call in calls])
        self.size_bytes = sum([call.size_bytes for call in calls])
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
