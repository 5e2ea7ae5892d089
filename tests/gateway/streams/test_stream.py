"""The guarantees of a Stream call, with a service paced by the test."""

import asyncio
import sys
from contextlib import nullcontext
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from google.rpc import code_pb2

from gateway.access.auth import Client
from gateway.access.in_flight import InFlight
from gateway.calls.call import Call
from gateway.calls.completion import Ending
from gateway.calls.slow_checks import SlowChecks
from gateway.streams.slices import Slices
from gateway.streams.stalled import Writes
from gateway.streams.stream import Stream, read
from market_inference.contract.deadline import NEVER, now
from market_inference.contract.encoding import wireformat
from market_inference.contract.errors import DrainingError, OverloadedError, StalledReaderError, reason_of
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.methods import METHODS

CLIENT = Client("me", frozenset())
ANSWER = pb.ComputeIndicatorsResponse(model="m").SerializeToString()
BIG_ANSWER = pb.ComputeIndicatorsResponse(model="m" * 1000).SerializeToString()
CREDITS = pb.StreamCredits(in_flight=4, bytes=1 << 20)


class Slow:
    """Answers each request when its gate opens; a panel's symbol names the gate."""

    def __init__(self) -> None:
        self.gates: dict[str, asyncio.Event] = {}
        self.begun: list[str] = []
        self.over: list[str] = []
        self.calls: list[Call] = []

    def open(self, *symbols: str) -> None:
        for symbol in symbols:
            self.gates.setdefault(symbol, asyncio.Event()).set()

    def start(self, call: Call) -> None:
        def ended(task: asyncio.Task[bytes]) -> None:
            if not task.cancelled():
                call.finish(task.exception() or task.result())

        call.task = asyncio.create_task(self._serve(call, call.raw))  # type: ignore[assignment]
        call.task.add_done_callback(ended)  # type: ignore[union-attr]

    async def _serve(self, call: Call, raw: bytes) -> bytes:
        symbol = pb.ComputeIndicatorsRequest.FromString(raw).panels[0].symbol
        self.begun.append(symbol)
        self.calls.append(call)
        await self.gates.setdefault(symbol, asyncio.Event()).wait()
        if symbol == "bad":
            raise OverloadedError("too much", retry_after=1.0)
        return BIG_ANSWER if symbol == "big" else ANSWER

    def record(self, call: Call, ending: Ending, line: bool) -> None:
        self.over.append(ending.code)


def memory(most: int = 1 << 30) -> InFlight:
    return InFlight(most=most, most_per_client=most, what="bytes")


def stream_of(
    service: Slow,
    credits: pb.StreamCredits,  # noqa: A002 -- the contract's name
    *,
    held: InFlight | None = None,
    messages: InFlight | None = None,
    reader_seconds: float = 60.0,
    slices: Slices | None = None,
    slow_checks: SlowChecks | None = None,
) -> Stream:
    call = Call(METHODS["Stream"], "s", now(), NEVER, client=CLIENT)
    timeouts = {"default_timeout": 30.0, "max_timeout": 60.0}
    return Stream(
        call,
        service.start,
        service.record,
        nullcontext,
        held or memory(),
        messages or memory(),
        writes=Writes(reader_seconds),
        slices=slices or Slices(),
        slow_checks=slow_checks or SlowChecks(),
        credits=credits,
        **timeouts,
    )


class Wire:
    """The transport's context: a client that sends when told, and reads only while `reading` is set."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[Any] = asyncio.Queue()
        self.got: asyncio.Queue[pb.StreamResponse] = asyncio.Queue()
        self.reading = asyncio.Event()
        self.reading.set()
        self.taken = 0

    async def read(self) -> Any:
        message = await self.sent.get()
        self.taken += 1
        return message

    async def write(self, raw: bytes) -> None:
        await self.reading.wait()
        self.got.put_nowait(pb.StreamResponse.FromString(raw))

    def send(self, *ids: int, symbols: str = "", **fields: Any) -> None:
        names = symbols.split() or [str(i) for i in ids]
        items = [
            pb.StreamItem(id=i, indicators=pb.ComputeIndicatorsRequest(panels=[pb.Panel(symbol=name)]), **fields)
            for i, name in zip(ids, names, strict=True)
        ]
        self.sent.put_nowait(pb.StreamRequest(requests=items).SerializeToString())

    def cancel(self, item_id: int) -> None:
        item = pb.StreamItem(id=item_id, cancel=pb.StreamCancel())
        self.sent.put_nowait(pb.StreamRequest(requests=[item]).SerializeToString())

    def end(self) -> None:
        self.sent.put_nowait(grpc.aio.EOF)

    async def answers(self, count: int) -> list[pb.StreamResult]:
        found: list[pb.StreamResult] = []
        while len(found) < count:
            found.extend((await self.got.get()).answers)
        assert len(found) == count
        return found


class Running:
    def __init__(self, stream: Stream, service: Slow, wire: Wire) -> None:
        self.stream, self.service, self.wire = stream, service, wire
        self.task = asyncio.create_task(stream.run(wire))

    async def settle(self) -> None:
        """Let everything that can go on without the test do so."""
        for _ in range(50):
            await asyncio.sleep(0)


@pytest.fixture
async def running():
    service, wire = Slow(), Wire()
    run = Running(stream_of(service, CREDITS), service, wire)
    assert (await wire.got.get()).credits == CREDITS
    yield run
    run.task.cancel()
    await asyncio.wait({run.task})


async def test_answers_come_as_they_are_ready_and_the_stream_ends_after_the_last(running):
    running.wire.send(1, 2, 3)
    running.wire.end()
    running.service.open("3")
    assert [one.id for one in await running.wire.answers(1)] == [3]
    running.service.open("1", "2")
    assert {one.id for one in await running.wire.answers(2)} == {1, 2}
    await running.task


async def test_an_error_is_its_requests_alone(running):
    running.service.open("bad", "2")
    running.wire.send(1, 2, symbols="bad 2")
    by_id = {one.id: one for one in await running.wire.answers(2)}
    assert by_id[1].error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    assert by_id[2].indicators.model == "m"
    running.wire.send(3)
    running.service.open("3")
    assert [one.id for one in await running.wire.answers(1)] == [3]


async def test_what_is_no_request_is_told_so_and_the_stream_goes_on(running):
    running.wire.sent.put_nowait(b"\xff\xff")
    running.wire.sent.put_nowait(pb.StreamRequest(requests=[pb.StreamItem(id=7)]).SerializeToString())
    running.wire.send(0)
    running.wire.send(5, 5)
    found = await running.wire.answers(4)
    assert [one.id for one in found] == [0, 7, 0, 5]
    assert {one.error.code for one in found} == {grpc.StatusCode.INVALID_ARGUMENT.value[0]}
    running.service.open("5")
    assert [one.WhichOneof("result") for one in await running.wire.answers(1)] == ["indicators"]


async def test_many_empty_fields_are_refused_and_the_stream_goes_on(running):
    running.wire.sent.put_nowait(b"\x7a\x00" * 65_537)
    (answer,) = await running.wire.answers(1)
    assert (answer.id, answer.error.message) == (0, "too many fields (max 1536)")
    running.wire.send(1)
    running.service.open("1")
    assert [one.id for one in await running.wire.answers(1)] == [1]


async def test_a_long_message_is_read_in_a_slice():
    class Counted(Slices):
        begun = 0

        async def begin(self, client):
            self.begun += 1
            return await super().begin(client)

    service, wire, slices = Slow(), Wire(), Counted()
    run = Running(stream_of(service, CREDITS, slices=slices), service, wire)
    await wire.got.get()
    for raw, begun in ((b"\x7a\x00" * 2048, 0), (b"\x7a\x00" * 2049, 1)):
        wire.sent.put_nowait(raw)
        (answer,) = await wire.answers(1)
        assert answer.error.message == "requests: at least 1 value (got 0)"
        assert slices.begun == begun
    wire.end()
    await run.task


def test_fields_of_a_newer_contract_cost_no_walk():
    item = b"\x08\x01" + b"\x7a\x00" * 20_000
    raw = b"".join(wireformat.pieces(1, item))
    message = read(raw)
    assert message is not None
    assert [one.id for one in message.requests] == [1]


async def test_a_request_in_pieces_is_read_in_the_clients_turn():
    turns = []

    class Turns(SlowChecks):
        async def turn(self, client, check):
            turns.append(client)
            return await super().turn(client, check)

    service, wire = Slow(), Wire()
    run = Running(stream_of(service, CREDITS, slow_checks=Turns()), service, wire)
    await wire.got.get()
    service.open("1")
    panel = pb.ComputeIndicatorsRequest(panels=[pb.Panel(symbol="1")]).SerializeToString()
    item = b"\x08\x01" + b"".join(wireformat.pieces(4, panel)) + b"".join(wireformat.pieces(4, b"\x12\x00"))
    wire.sent.put_nowait(b"".join(wireformat.pieces(1, item)))
    assert [one.indicators.model for one in await wire.answers(1)] == ["m"]
    wire.sent.put_nowait(b"".join(wireformat.pieces(1, b"\x22\x00" * 20_000)))
    (answer,) = await wire.answers(1)
    assert (answer.id, answer.error.message) == (0, "too many fields (max 16384)")
    assert turns == [CLIENT.name] * 2
    wire.end()
    await run.task


async def test_a_cancel_withdraws_one_request_and_is_answered(running):
    running.wire.send(1, 2)
    await running.settle()
    running.wire.cancel(1)
    (answer,) = await running.wire.answers(1)
    assert (answer.id, answer.error.code) == (1, grpc.StatusCode.CANCELLED.value[0])
    running.service.open("2")
    assert [one.id for one in await running.wire.answers(1)] == [2]
    assert running.service.over == ["CANCELLED", "OK"]
    running.wire.cancel(99)
    running.wire.send(3)
    running.service.open("3")
    assert [one.id for one in await running.wire.answers(1)] == [3]


async def test_a_cancel_in_the_same_message_as_its_request_is_answered_too(running):
    request = pb.StreamItem(id=1, indicators=pb.ComputeIndicatorsRequest(panels=[pb.Panel(symbol="1")]))
    cancel = pb.StreamItem(id=1, cancel=pb.StreamCancel())
    running.wire.sent.put_nowait(pb.StreamRequest(requests=[request, cancel]).SerializeToString())
    (answer,) = await running.wire.answers(1)
    assert (answer.id, answer.error.code) == (1, grpc.StatusCode.CANCELLED.value[0])


async def test_beyond_the_credits_nothing_is_taken_until_an_answer_has_left(running):
    running.wire.send(*range(1, 8))
    await running.settle()
    assert running.service.begun == ["1", "2", "3", "4"]
    running.service.open("2")
    assert [one.id for one in await running.wire.answers(1)] == [2]
    await running.settle()
    assert running.service.begun == ["1", "2", "3", "4", "5"]


async def test_a_client_that_stops_reading_stops_being_read(running):
    running.wire.reading.clear()
    for item_id in range(1, 30):
        running.wire.send(item_id)
        running.service.open(str(item_id))
    await running.settle()
    assert len(running.service.begun) == 4
    assert running.wire.taken <= 5
    running.wire.reading.set()
    found = await running.wire.answers(29)
    assert sorted(one.id for one in found) == list(range(1, 30))


async def test_bytes_of_answers_not_yet_read_count_against_the_credits():
    service, wire = Slow(), Wire()
    run = Running(stream_of(service, pb.StreamCredits(in_flight=100, bytes=1500)), service, wire)
    service.open("big")
    await wire.got.get()
    wire.reading.clear()
    for item_id in range(1, 20):
        wire.send(item_id, symbols="big")
        await run.settle()
    assert len(service.begun) == 2
    wire.reading.set()
    wire.end()
    assert len(await wire.answers(19)) == 19
    await run.task


async def test_a_request_has_its_own_time_and_identity(running):
    running.service.open("1", "2")
    running.wire.send(1, timeout={"seconds": 2})
    running.wire.send(2)
    await running.wire.answers(2)
    first, second = running.service.calls
    assert first.deadline - first.began == pytest.approx(2)
    assert second.deadline - second.began == pytest.approx(30)
    assert (first.request_id, second.request_id) == ("s/1", "s/2")


async def test_a_caller_who_leaves_takes_his_requests_with_him(running):
    running.wire.send(1, 2)
    await running.settle()
    running.task.cancel()
    await asyncio.wait({running.task})
    await running.settle()
    assert running.service.over == ["CANCELLED", "CANCELLED"]


async def test_a_client_that_reads_no_answer_in_time_loses_the_stream_and_its_requests_in_flight():
    service, wire = Slow(), Wire()
    run = Running(stream_of(service, CREDITS, reader_seconds=0.05), service, wire)
    await wire.got.get()
    wire.reading.clear()
    wire.send(2, 3)
    await run.settle()
    service.open("1")
    wire.send(1)
    async with asyncio.timeout(60):
        while service.over != ["OK", "CANCELLED", "CANCELLED"]:  # noqa: ASYNC110 -- set by a timer of the stream
            await asyncio.sleep(0.01)
    assert not run.task.done()
    wire.reading.set()
    with pytest.raises(StalledReaderError):
        await asyncio.wait_for(run.task, 60)
    assert [one.id for one in await wire.answers(1)] == [1]


async def test_a_stream_waits_while_its_client_has_half_of_its_bytes_in_flight():
    service, wire, held = Slow(), Wire(), memory(1000)
    held.enter("me", 600)
    run = Running(stream_of(service, CREDITS, held=held), service, wire)
    await wire.got.get()
    wire.send(1)
    await run.settle()
    assert service.begun == []
    held.leave("me", 600)
    await run.settle()
    assert service.begun == ["1"]
    run.task.cancel()


async def test_a_message_counts_until_its_requests_are_taken_and_is_not_kept():
    service, wire, messages = Slow(), Wire(), memory(1000)
    run = Running(stream_of(service, pb.StreamCredits(in_flight=1, bytes=1 << 20), messages=messages), service, wire)
    await wire.got.get()
    wire.send(1, 2)
    raw = wire.sent.get_nowait()
    references = sys.getrefcount(raw)
    wire.sent.put_nowait(raw)
    await run.settle()
    assert service.begun == ["1"]
    assert messages.total == len(raw)
    assert sys.getrefcount(raw) == references
    service.open("1", "2")
    assert [one.id for one in await wire.answers(2)] == [1, 2]
    await run.settle()
    assert messages.total == 0
    wire.sent.put_nowait(b"\xff")
    assert [one.error.code for one in await wire.answers(1)] == [code_pb2.INVALID_ARGUMENT]
    assert messages.total == 0
    run.task.cancel()


async def test_a_message_beyond_the_bytes_of_messages_has_its_requests_refused_and_its_cancels_heard():
    service, wire, messages = Slow(), Wire(), memory(1000)
    run = Running(stream_of(service, CREDITS, messages=messages), service, wire)
    await wire.got.get()
    wire.send(1)
    await run.settle()
    messages.enter("me", 1000)
    items = [pb.StreamItem(id=1, cancel=pb.StreamCancel())]
    items += [pb.StreamItem(id=number, indicators=pb.ComputeIndicatorsRequest()) for number in (2, 3)]
    wire.sent.put_nowait(pb.StreamRequest(requests=items).SerializeToString())
    found = {one.id: reason_of(one.error) for one in await wire.answers(3)}
    assert found == {1: "CANCELLED", 2: "OVERLOADED", 3: "OVERLOADED"}
    messages.leave("me", 1000)
    wire.send(4)
    service.open("4")
    assert [one.id for one in await wire.answers(1)] == [4]
    assert messages.total == 0
    run.task.cancel()


async def test_draining_answers_what_is_in_flight_and_ends(running):
    running.wire.send(1)
    await running.settle()
    running.stream.drain(DrainingError("draining"))
    await running.settle()
    assert not running.task.done()
    running.service.open("1")
    assert [one.id for one in await running.wire.answers(1)] == [1]
    await running.settle()
    running.wire.send(2)
    with pytest.raises(DrainingError):
        await asyncio.wait_for(running.task, 60)
    assert running.service.begun == ["1"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"request_id": "x" * 129}, "request_id"),
        ({"traceparent": "0" * 129}, "traceparent"),
        ({"timeout": duration_pb2.Duration(seconds=-1)}, "timeout"),
        ({"timeout": duration_pb2.Duration()}, "timeout"),
        ({"timeout": duration_pb2.Duration(seconds=5, nanos=-1)}, "timeout"),
        ({"timeout": duration_pb2.Duration(seconds=1, nanos=2_000_000_000)}, "timeout"),
        ({"timeout": duration_pb2.Duration(seconds=2**63 - 1)}, "timeout"),
    ],
)
async def test_a_field_of_a_request_that_breaks_its_rule_is_refused_by_name(running, fields, field):
    running.wire.send(1, **fields)
    (answer,) = await running.wire.answers(1)
    assert answer.id == 1
    assert f"{field}: " in str(answer.error) or f'"{field}' in str(answer.error) or field in answer.error.message
    assert code_pb2.Code.Name(answer.error.code) == "INVALID_ARGUMENT"
    assert not running.service.begun
    running.wire.send(2, symbols="fine", timeout=duration_pb2.Duration(seconds=315_576_000_000))
    running.service.open("fine")
    assert [answer.id for answer in await running.wire.answers(1)] == [2]


async def test_a_message_without_requests_is_refused(running):
    running.wire.sent.put_nowait(b"")
    (answer,) = await running.wire.answers(1)
    assert (answer.id, code_pb2.Code.Name(answer.error.code)) == (0, "INVALID_ARGUMENT")
    assert "requests" in str(answer.error)


class ByHand(SlowChecks):
    """Turns that the test gives."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = []

    def add(self, client, check):
        self.waiting.append((client, check))

    def give(self) -> None:
        _, check = self.waiting.pop(0)
        check()


async def test_a_message_with_a_suspected_request_is_read_on_in_turns_of_the_slow_checks(monkeypatch):
    """Refusals of a thousand mistakes take as long as their checks: half a millisecond in each turn of the loop."""
    # A busy machine may stop the process for half a millisecond: here the time of a turn does not run out.
    monkeypatch.setattr("gateway.streams.stream.SLICE_SECONDS", 60.0)

    class Suspecting(Slow):
        def start(self, call: Call) -> None:
            assert call.mistakes is not None
            call.mistakes.suspected = call.mistakes.suspected or len(self.calls) == 1
            self.calls.append(call)

    service, wire, turns = Suspecting(), Wire(), ByHand()
    # Such a short slice takes one request.
    run = Running(stream_of(service, CREDITS, slices=Slices(1e-9), slow_checks=turns), service, wire)
    wire.send(1, 2, 3, 4)
    await run.settle()
    assert len(service.calls) == 2
    assert [client for client, _ in turns.waiting] == [CLIENT.name]
    turns.give()
    await run.settle()
    assert len(service.calls) == 4
    assert not turns.waiting
    # The next message begins in the slices of all streams.
    service.calls.clear()
    run.stream._credits = pb.StreamCredits(in_flight=8, bytes=1 << 20)
    run.stream._credit.set()
    wire.send(5)
    await run.settle()
    assert len(service.calls) == 1
    run.task.cancel()
    await asyncio.gather(run.task, return_exceptions=True)
