"""Refusals of full replicas: while a refusal holds, the gateway itself refuses the client's calls of the same kind.

Owns the memory of refusals. Before a replica refuses a request, the request is checked, sent, copied and read. Without
this memory, a client with an immediate retry of 5 MB would occupy the event loops of both processes.

A refusal holds for half of `retry_after`, so that the queue never runs empty, and for similar calls: the same client,
priority, method and model, at least about the same work, at most about the same time. Work is bytes, bytes with the
answer, and units: one cheap indicator of many bars has more bytes, yet less work, than many costly indicators of few
bars. A replica without a refusal for such a call gets the call.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from gateway.calls.call import Call
from market_inference.contract import deadline
from market_inference.contract.errors import (
    InvalidRequestError,
    OverloadedError,
    RequestTooLargeError,
    reason_of,
    retry_after_of,
)
from market_inference.contract.validation.check import read

if TYPE_CHECKING:
    from gateway.calls.request import Request
    from gateway.replicas.replica import Replica

MOST_SECONDS: Final = 1.0
"""A refusal holds for at most this time."""
_SHARE: Final = 0.5
# Similar calls: work from this share of the refused work on, time up to this multiple.
_ABOUT, _AS_MUCH = 0.8, 1.01
# Beyond so many kinds of calls, past refusals are forgotten.
_MOST_KINDS: Final = 1024

_Kind = tuple[str, str, str, str]
_Work = tuple[int, int, int]
"""Bytes of the request, bytes of request and answer, and units."""


class _Refusal(NamedTuple):
    """Instants of the monotonic clock: the end of the refusal, and the time for the client's next try."""

    work: _Work
    seconds: float
    until: float
    again: float


class Refusals:
    """The latest refusal by kind of call and by replica."""

    def __init__(self) -> None:
        self._found: dict[_Kind, dict[str, _Refusal]] = {}

    def note(self, request: "Request", error: status_pb2.Status) -> None:
        """Note a replica's error, if the replica was full. The calls of a merged request count as one."""
        if reason_of(error) != OverloadedError.reason:
            return
        delay, at, call = retry_after_of(error), deadline.now(), request.calls[0]
        if len(self._found) >= _MOST_KINDS:
            self._forget(at)
        seconds = max(call.deadline - call.began for call in request.calls)
        size, held, units = zip(*map(_work, request.calls), strict=True)
        work, until = (sum(size), sum(held), sum(units)), at + min(_SHARE * delay, MOST_SECONDS)
        self._found.setdefault(_kind(call), {})[request.replica] = _Refusal(work, seconds, until, at + delay)

    def check(self, call: Call, replicas: Sequence["Replica"]) -> None:
        """Refuse a call after refusals of all replicas. Raises OverloadedError."""
        found = self._found.get(_kind(call)) if self._found else None
        if found is None or not replicas:
            return
        at = deadline.now()
        refusals = [refusal for replica in replicas if (refusal := found.get(replica.address)) and refusal.until > at]
        if len(refusals) < len(replicas) or not _alike(call, refusals):
            return
        again = min(refusal.again for refusal in refusals)
        raise OverloadedError(
            f"such a call of this client was refused before, and asked to come again in {again - at:.2f} s",
            retry_after=again - at,
        )

    def _forget(self, at: float) -> None:
        self._found = {
            kind: found for kind, found in self._found.items() if any(one.until > at for one in found.values())
        }


def _kind(call: Call) -> _Kind:
    return call.client.name, call.priority, call.method.name, call.model


def _alike(call: Call, refusals: Sequence[_Refusal]) -> bool:
    """Whether the call has at least the work of each refused call."""
    try:
        work = _work(call)
    except (InvalidRequestError, RequestTooLargeError, DecodeError):  # the check says what is wrong
        return False
    return all(
        call.deadline - call.began <= _AS_MUCH * refusal.seconds
        and all(own >= _ABOUT * refused for own, refused in zip(work, refusal.work, strict=True))
        for refusal in refusals
    )


def _work(call: Call) -> _Work:
    """Raises as read()."""
    message = call.message or read(call.method, call.raw)
    return call.size_bytes, call.held_bytes, 0 if message is None else call.method.units(message)
