"""The gateway's guarantees for a live session, with a replica and a caller paced by the test."""

import asyncio
import sys
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from gateway.access.in_flight import InFlight
from gateway.streams.stalled import Writes
from gateway.streams.watch import BAR_BYTES, BARS_CHARGED_AT_ONCE, UNITS_CHARGED_AT_ONCE, Watch, read_open
from market_inference.contract import methods
from market_inference.contract.errors import (
    DrainingError,
    InternalError,
    InvalidRequestError,
    OverloadedError,
    QuotaExceededError,
    RateLimitedError,
    RemoteError,
    SessionIdleError,
    SessionLostError,
    StalledReaderError,
    reason_of,
)
from market_inference.contract.generated import exchange_pb2
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.validation import explain

WINDOW = 8
LIMIT = methods.METHODS["Watch"].max_further_request_bytes


class FakeLink:
    """Records the messages to the replica; the test answers instead of the replica."""

    def __init__(self) -> None:
        self.on_reply: Any = None
        self.bars: list[int] = []
        self.envelopes: list[exchange_pb2.Envelope] = []
        self.arrived: asyncio.Queue[int] = asyncio.Queue()
        self.closed: list[int] = []

    def open(self, envelope: exchange_pb2.Envelope, on_reply: Any, on_lost: Any) -> None:
        self.on_reply = on_reply

    def send(self, envelope: exchange_pb2.Envelope) -> None:
        self.envelopes.append(envelope)
        self.bars.append(envelope.watch_bar.sequence)
        self.arrived.put_nowait(envelope.watch_bar.sequence)

    def close(self, session: int) -> None:
        self.closed.append(session)

    def answer(self, response: pb.WatchResponse) -> None:
        if self.closed:  # as the link does
            return
        watch = exchange_pb2.WatchReply(
            response=response.SerializeToString(),
            replaceable=response.HasField("update"),
            forecast=response.update.HasField("forecast"),
        )
        self.on_reply(exchange_pb2.Reply(id=7, watch=watch))

    def update(self, sequence: int) -> None:
        self.answer(pb.WatchResponse(sequence=sequence, update=pb.WatchUpdate(indicators=[1.0]), taken=sequence))


class Caller:
    """The transport's context: sends when told, and reads only while `reading` is set."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[Any] = asyncio.Queue()
        self.got: list[pb.WatchResponse] = []
        self.reading = asyncio.Event()
        self.reading.set()

    async def read(self) -> Any:
        return await self.sent.get()

    async def write(self, raw: bytes) -> None:
        await self.reading.wait()
        self.got.append(pb.WatchResponse.FromString(raw))

    def send(self, *sequences: int) -> None:
        for at in sequences:
            bar = pb.WatchBar(sequence=at, bar=pb.Bar(time=at, close=1.0))
            self.sent.put_nowait(pb.WatchRequest(bar=bar).SerializeToString())


class Running:
    def __init__(
        self,
        delivery: Any = pb.WATCH_DELIVERY_LOSSLESS,
        idle_seconds: float = 60.0,
        reader_seconds: float = 60.0,
        most_bytes: int = 1 << 30,
        memory: InFlight | None = None,
        forecast: pb.WatchForecast | None = None,
    ) -> None:
        self.link, self.caller = FakeLink(), Caller()
        self.refusals: list[Exception] = []
        self.charged = 0
        envelope = exchange_pb2.Envelope(id=7, watch_open=pb.WatchOpen(delivery=delivery, forecast=forecast))
        self.memory = memory or InFlight(most=1 << 30, most_per_client=most_bytes, what="bytes")
        self.watch = Watch(
            self.link,  # type: ignore[arg-type]
            envelope,
            self.memory,
            idle_seconds=idle_seconds,
            writes=Writes(reader_seconds),
            charge=self.charge,
            on_opened=lambda: None,
            window=WINDOW,
        )
        self.task = asyncio.create_task(self.watch.run(self.caller))

    async def charge(self, units: int) -> None:
        if self.refusals:
            raise self.refusals.pop(0)
        self.charged += units

    async def opened(self, **answer: Any) -> "Running":
        self.link.answer(pb.WatchResponse(opened=pb.WatchOpened(**answer)))
        await self.settle()
        assert self.caller.got.pop().HasField("opened")
        return self

    async def settle(self) -> None:
        """Let everything that can go on without the test do so."""
        for _ in range(50):
            await asyncio.sleep(0)


async def test_a_reader_that_stops_stops_being_read_and_loses_nothing():
    run = await Running().opened()
    run.caller.reading.clear()
    run.caller.send(*range(1, 31))
    for answered in range(1, 31):
        await run.settle()
        if answered <= len(run.link.bars):
            run.link.update(answered)
    assert run.link.bars == list(range(1, WINDOW + 1))
    run.caller.reading.set()
    for answered in range(WINDOW + 1, 31):
        await run.settle()
        run.link.update(answered)
    run.caller.sent.put_nowait(grpc.aio.EOF)
    await run.task
    assert [one.sequence for one in run.caller.got] == list(range(1, 31))
    assert run.link.closed == [7]


async def test_who_wants_the_latest_gets_it_and_every_error():
    run = await Running(pb.WATCH_DELIVERY_LATEST).opened()
    run.caller.reading.clear()
    run.caller.send(*range(1, 21))
    refused = InvalidRequestError([]).status("id")
    for sequence in range(1, 21):
        await run.settle()
        assert run.link.bars[-1] >= sequence, "bars whose update was replaced gave their place back"
        if sequence in (3, 11):
            run.link.answer(pb.WatchResponse(sequence=sequence, error=refused, taken=sequence))
        else:
            run.link.update(sequence)
    run.caller.reading.set()
    await run.settle()
    # The first was on its way already when the reader stopped.
    assert [one.sequence for one in run.caller.got] == [1, 2, 3, 10, 11, 20]
    run.task.cancel()


async def test_who_wants_the_latest_gets_the_newest_forecast_too():
    run = await Running(pb.WATCH_DELIVERY_LATEST).opened()
    run.caller.reading.clear()
    run.caller.send(*range(1, 31))
    for sequence in range(1, 31):
        await run.settle()
        assert run.link.bars[-1] >= sequence, "bars whose update was replaced gave their place back"
        response = pb.WatchResponse(sequence=sequence, update=pb.WatchUpdate(indicators=[1.0]), taken=sequence)
        if sequence % 10 == 5:
            response.update.forecast.point.append(1.0)
        run.link.answer(response)
    run.caller.reading.set()
    await run.settle()
    assert [one.sequence for one in run.caller.got] == [1, 25, 30]
    run.task.cancel()


async def test_what_is_no_bar_is_told_so_and_the_session_goes_on():
    run = await Running().opened()
    run.caller.sent.put_nowait(b"\xff\xff")
    run.caller.sent.put_nowait(pb.WatchRequest(open=pb.WatchOpen()).SerializeToString())
    run.caller.send(1)
    await run.settle()
    run.link.update(1)
    await run.settle()
    assert [one.WhichOneof("result") for one in run.caller.got] == ["error", "error", "update"]
    assert not run.task.done()
    run.task.cancel()


@pytest.mark.parametrize(
    ("ending", "error"),
    [
        (lambda run: run.watch.lose(), SessionLostError),
        (lambda run: run.watch.drain(DrainingError("draining")), DrainingError),
        (
            lambda run: run.watch.take_reply(exchange_pb2.Reply(id=7, error=OverloadedError("full").status("id"))),
            RemoteError,
        ),
    ],
    ids=["lost", "draining", "refused"],
)
async def test_an_ending_gives_its_reason(ending, error):
    run = await Running().opened()
    ending(run)
    with pytest.raises(error):
        await run.task
    assert run.link.closed == [7]


async def test_bars_beyond_the_rate_are_slowed_and_not_refused():
    run = await Running().opened()
    run.refusals = [RateLimitedError("slower", retry_after=0.001)] * 3
    for sequence in range(1, BARS_CHARGED_AT_ONCE + 2):
        run.caller.send(sequence)
        assert await run.link.arrived.get() == sequence
        run.link.update(sequence)
    assert run.refusals == []
    assert run.charged == 2 * BARS_CHARGED_AT_ONCE
    run.task.cancel()


@pytest.mark.parametrize(
    ("forecast", "answer"),
    [
        (None, {"units_per_bar": 100}),
        (None, {"units_per_bar": 9000}),
        (pb.WatchForecast(horizon=1, every=2), {"bars": 50}),
        (pb.WatchForecast(horizon=365), {"bars": 10_000, "units_per_bar": 2}),
    ],
)
async def test_every_bar_is_charged_before_it_is_sent_and_a_forecast_with_the_bars_held(forecast, answer):
    run = await Running(forecast=forecast).opened(**answer)
    cost = 0
    for sequence in range(1, 101):
        run.caller.send(sequence)
        assert await run.link.arrived.get() == sequence
        cost += answer.get("units_per_bar", 1)
        if forecast is not None and sequence % (forecast.every or 1) == 0:
            cost += min(sequence, answer["bars"]) + forecast.horizon
        assert cost <= run.charged < cost + UNITS_CHARGED_AT_ONCE
        run.link.update(sequence)
    run.task.cancel()


async def test_a_bar_before_the_answer_to_the_opening_waits_for_it():
    run = Running()
    run.caller.send(1)
    await run.settle()
    assert (run.link.bars, run.charged) == ([], 0)
    await run.opened(units_per_bar=2)
    assert (run.link.bars, run.charged) == ([1], 2 * BARS_CHARGED_AT_ONCE)
    run.task.cancel()


async def test_an_answer_to_the_opening_that_is_none_ends_the_session():
    run = Running()
    run.link.on_reply(exchange_pb2.Reply(id=7, watch=exchange_pb2.WatchReply(response=b"\xff")))
    with pytest.raises(InternalError):
        await run.task
    assert run.link.closed == [7]


async def test_bars_beyond_the_quota_end_the_session():
    run = await Running().opened()
    run.refusals = [QuotaExceededError("me", "1 unit", retry_after=60.0)]
    run.caller.send(1)
    with pytest.raises(QuotaExceededError):
        await run.task
    assert run.link.bars == []


async def test_a_caller_that_reads_no_answer_in_time_loses_the_session_and_no_memory_stays():
    run = await Running(reader_seconds=0.05).opened()
    run.caller.reading.clear()
    run.caller.send(1, 2, 3)
    await run.settle()
    for sequence in (1, 2, 3):
        run.link.update(sequence)
    assert run.memory.total > 0
    async with asyncio.timeout(60):
        while not run.link.closed:  # noqa: ASYNC110 -- set by a timer of the session
            await asyncio.sleep(0.01)
    run.caller.reading.set()
    with pytest.raises(StalledReaderError):
        await run.task
    assert run.memory.total == 0


async def test_unread_answers_beyond_the_clients_bytes_end_the_session():
    run = await Running(most_bytes=2 * WINDOW * BAR_BYTES).opened()
    run.caller.reading.clear()
    run.caller.send(*range(1, WINDOW + 1))
    await run.settle()
    for sequence in range(1, WINDOW + 1):
        run.link.answer(pb.WatchResponse(sequence=sequence, update=pb.WatchUpdate(indicators=[1.0] * 100)))
        await run.settle()
    run.caller.reading.set()
    with pytest.raises(OverloadedError, match="bytes of this client in flight"):
        await run.task
    assert run.memory.total == 0


UNKNOWN = b"\x7a\x03abc"  # field 15, three bytes


async def test_fields_unknown_to_the_contract_end_at_the_gateway():
    run = await Running().opened()
    bar = pb.Bar(time=1, close=1.0).SerializeToString() + UNKNOWN
    watched = b"\x08\x01\x12" + bytes([len(bar)]) + bar + UNKNOWN
    run.caller.sent.put_nowait(b"\x12" + bytes([len(watched)]) + watched + UNKNOWN)
    await run.settle()
    known = pb.WatchBar(sequence=1, bar=pb.Bar(time=1, close=1.0))
    [envelope] = run.link.envelopes
    assert envelope.watch_bar.SerializeToString() == known.SerializeToString()
    opened = read_open(pb.WatchRequest(open=pb.WatchOpen(symbol="A")).SerializeToString() + b"\x0a\x05" + UNKNOWN)
    assert opened.SerializeToString() == pb.WatchOpen(symbol="A").SerializeToString()
    run.task.cancel()


async def test_a_large_message_after_the_opening_is_refused_by_field_and_limit_and_not_kept():
    run = await Running().opened()
    at_limit = pb.WatchRequest(bar=pb.WatchBar(sequence=1, bar=pb.Bar(time=1, close=1.0))).SerializeToString()
    at_limit += b"\x7a" + bytes([0x80 | (LIMIT - len(at_limit) - 3) & 0x7F, LIMIT - len(at_limit) - 3 >> 7])
    run.caller.sent.put_nowait(at_limit.ljust(LIMIT, b"x"))
    above = at_limit.ljust(LIMIT + 1, b"x")
    references = sys.getrefcount(above)
    run.caller.sent.put_nowait(above)
    await run.settle()
    assert run.link.bars == [1]
    assert sys.getrefcount(above) == references
    run.link.update(1)
    await run.settle()
    answer, refusal = run.caller.got
    assert answer.HasField("update")
    assert reason_of(refusal.error) == "REQUEST_TOO_LARGE"
    mistakes = error_details_pb2.BadRequest()
    assert any(detail.Unpack(mistakes) for detail in refusal.error.details)
    [violation] = mistakes.field_violations
    assert (violation.field, violation.description) == ("bar", "request too large (max 1024 bytes, got 1025)")
    assert run.memory.total == 0
    run.task.cancel()


def test_the_largest_bar_of_an_honest_client_fits_ten_times():
    bar = pb.Bar(time=-1, open=1e300, high=1e300, low=1e300, close=1e300, volume=1e300)
    message = pb.WatchRequest(bar=pb.WatchBar(sequence=(1 << 64) - 1, bar=bar, as_of=-1))
    assert message.ByteSize() * 10 < LIMIT


async def test_bars_and_refusals_count_until_their_answers_have_left():
    run = await Running().opened()
    run.caller.send(1, 2)
    run.caller.sent.put_nowait(b"\xff")
    await run.settle()
    refusal = run.memory.total - 3 * BAR_BYTES
    assert refusal > 0
    run.caller.reading.clear()
    run.link.update(1)
    run.link.update(2)
    await run.settle()
    assert run.memory.total > 3 * BAR_BYTES + refusal
    run.caller.reading.set()
    await run.settle()
    assert run.memory.total == 0
    run.caller.send(3)
    run.caller.sent.put_nowait(b"\xff")
    await run.settle()
    assert run.memory.total > 2 * BAR_BYTES
    run.task.cancel()
    await asyncio.wait({run.task})
    assert run.memory.total == 0


async def test_a_session_is_read_bar_by_bar_while_its_client_has_half_of_its_bytes_in_flight():
    memory = InFlight(most=1 << 30, most_per_client=5 * BAR_BYTES)
    first, second = await Running(memory=memory).opened(), await Running(memory=memory).opened()
    first.caller.send(1, 2, 3, 4)
    await first.settle()
    # The reads of the fourth bar here and of the first one there had begun before.
    assert first.link.bars == [1, 2, 3]
    second.caller.send(1, 2)
    await second.settle()
    assert second.link.bars == [1]
    for sequence in (1, 2, 3):
        first.link.update(sequence)
    await first.settle()
    assert (first.link.bars, second.link.bars) == ([1, 2, 3, 4], [1, 2])
    for run in (first, second):
        run.task.cancel()
        await asyncio.wait({run.task})
    assert memory.total == 0


async def test_other_calls_of_the_client_neither_stop_nor_end_a_session():
    memory = InFlight(most=1 << 30, most_per_client=1 << 20)
    run = await Running(memory=memory).opened()
    memory.enter("", 1 << 20)
    run.caller.send(1, 2, 3)
    await run.settle()
    assert run.link.bars == []
    memory.leave("", 2 * BAR_BYTES)
    for sequence in (1, 2, 3):
        await run.settle()
        assert run.link.bars == list(range(1, sequence + 1))
        run.link.update(sequence)
    await run.settle()
    assert [answer.sequence for answer in run.caller.got] == [1, 2, 3]
    run.task.cancel()
    await asyncio.wait({run.task})
    assert memory.total == (1 << 20) - 2 * BAR_BYTES


async def test_a_bar_that_waits_for_the_rate_counts_and_a_large_message_does_not_wait_with_its_bytes():
    run = await Running().opened()
    run.refusals = [RateLimitedError("slow", retry_after=60.0)]
    large = b"x" * (1 << 20)
    references = sys.getrefcount(large)
    run.caller.sent.put_nowait(large)
    await run.settle()
    assert sys.getrefcount(large) == references
    assert run.memory.total == BAR_BYTES
    run.task.cancel()


async def test_without_bars_it_ends():
    run = await Running(idle_seconds=0.01).opened()
    with pytest.raises(SessionIdleError):
        await run.task


@pytest.mark.parametrize("raw", [b"\xff", grpc.aio.EOF, pb.WatchRequest(bar=pb.WatchBar()).SerializeToString()])
def test_the_first_message_opens(raw):
    with pytest.raises(InvalidRequestError):
        read_open(raw)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"close": [1.0, float("nan"), 1.0]}, "history.close[1]"),
        ({"volume": [1.0, 1.0, -1.0]}, "history.volume[2]"),
        ({"high": [1.0]}, "history.high"),
        ({"low": [2.0, 1.0, 1.0]}, "history.low[0]"),
    ],
)
def test_a_history_that_breaks_a_rule_is_refused_by_its_field(changes, field):
    panel = pb.Panel(**{"close": [1.0, 1.0, 1.0], **changes})
    with pytest.raises(InvalidRequestError) as caught:
        explain.check(pb.WatchOpen(history=panel))
    assert caught.value.violations[0].field == field


async def test_refusals_keep_the_order_of_the_messages_and_come_after_the_opening():
    running = Running()
    running.caller.sent.put_nowait(b"\xff")
    running.caller.send(1)
    running.caller.sent.put_nowait(b"\xff")
    running.caller.send(2)
    await running.settle()
    assert running.caller.got == []
    running.link.answer(pb.WatchResponse(opened=pb.WatchOpened()))
    await running.settle()
    assert [one.WhichOneof("result") for one in running.caller.got] == ["opened", "error"]
    running.link.update(1)
    running.link.update(2)
    await running.settle()
    assert [one.WhichOneof("result") for one in running.caller.got[2:]] == ["update", "error", "update"]
    running.caller.sent.put_nowait(grpc.aio.EOF)
    await asyncio.wait_for(running.task, 60)
