"""Requests on their way to a replica: large ones delay few others."""

import asyncio

from gateway.replicas.outbox import Outbox
from market_inference.contract.generated.exchange_pb2 import Envelope, ExchangeCancel, ExchangeRequest
from runtime.frame_queue import LARGE_BYTES
from tests.eventually import eventually_async

# A message of one unknown field, so that the body can have any size.
LARGE = b"\xfa\x7f\x80\x80\x10" + bytes(LARGE_BYTES)


class Slow:
    """A stream that takes a frame when the test says so."""

    def __init__(self) -> None:
        self.frames: list[list[int]] = []
        self.room = asyncio.Semaphore(0)
        self.ended = False

    async def write(self, pieces: list[bytes]) -> None:
        await self.room.acquire()
        envelopes = ExchangeRequest.FromString(b"".join(pieces)).envelopes
        self.frames.append([-one.id if one.HasField("cancel") else one.id for one in envelopes])

    async def done_writing(self) -> None:
        self.ended = True


async def test_small_requests_overtake_large_ones_and_a_cancelled_one_never_leaves():
    outbox, stream, complete = Outbox(), Slow(), asyncio.Event()
    writing = asyncio.create_task(outbox.write(stream, complete.is_set))
    for envelope_id in (1, 2, 3):
        outbox.add(Envelope(id=envelope_id), "predict", LARGE)
    await asyncio.sleep(0)
    for envelope_id in (4, 5):
        outbox.add(Envelope(id=envelope_id), "predict", b"")
    assert outbox.discard(2)
    assert not outbox.discard(4)
    outbox.add(Envelope(id=4, cancel=ExchangeCancel()))
    complete.set()
    for _ in range(10):
        stream.room.release()
    await eventually_async(lambda: stream.ended)
    assert stream.frames == [[1], [4, 5, -4], [3]]
    await writing


async def test_the_cancel_of_items_does_not_overtake_their_large_request():
    """A replica ignores the cancel of a request that it does not know."""
    outbox, stream, complete = Outbox(), Slow(), asyncio.Event()
    writing = asyncio.create_task(outbox.write(stream, complete.is_set))
    for envelope_id in (1, 2):
        outbox.add(Envelope(id=envelope_id), "predict", LARGE)
    await asyncio.sleep(0)
    outbox.add(Envelope(id=3), "predict", b"")
    outbox.add(Envelope(id=2, cancel=ExchangeCancel(items=[0])))
    complete.set()
    for _ in range(10):
        stream.room.release()
    await eventually_async(lambda: stream.ended)
    assert stream.frames == [[1], [3], [2, -2]]
    await writing
