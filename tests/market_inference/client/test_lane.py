"""Messages of a lane, and services without streams, where calls in company are unary."""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2

import market_inference
from market_inference import errors
from market_inference.client import calls
from market_inference.client import lane as lane_module
from market_inference.client.lane import Lane, ThreadedLane
from market_inference.contract.generated import answers_pb2
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.methods import METHODS
from tests.eventually import eventually
from tests.market_inference.conftest import predict

CLOSES = [1.0] * 40


def good(request: pb.StreamItem) -> bytes:
    return answer(request.id, predict=predict(request.predict).SerializeToString())


def answer(number: int, **result: Any) -> bytes:
    found = answers_pb2.StreamResultAnswer(id=number, **result)
    return answers_pb2.StreamAnswer(answers=[found]).SerializeToString()


@contextmanager
def service_with_streams(first: Callable[[pb.StreamItem], bytes], in_flight: int = 8) -> Iterator[str]:
    """A service on a real socket, whose first stream answers each request with the bytes `first`, others correctly."""
    answers = iter((first,))

    def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        behave = next(answers, good)
        yield answers_pb2.StreamAnswer(credits=pb.StreamCredits(in_flight=in_flight)).SerializeToString()
        for raw in requests:
            for request in pb.StreamRequest.FromString(raw).requests:
                if not request.HasField("cancel") and (answered := behave(request)):
                    yield answered

    server = grpc.server(ThreadPoolExecutor(4))
    service, method = METHODS["Predict"].path.strip("/").split("/")[0], grpc.stream_stream_rpc_method_handler(stream)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Stream": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait(60)


WRONG = {
    "bytes that are no message": lambda request: b"\xff\xff",
    "an answer without a result": lambda request: answer(request.id),
    "a result that cannot be read": lambda request: answer(request.id, predict=b"\xff\xff"),
    "a code without a name": lambda request: answer(request.id, error=status_pb2.Status(code=99, message="odd")),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
async def test_a_wrong_answer_is_the_error_of_its_waiter_and_the_next_call_is_answered(wrong):
    with service_with_streams(lambda request: wrong(request) if request.predict.horizon == 1 else good(request)) as to:
        async with market_inference.AsyncClient(to) as client, client.stream() as stream, asyncio.timeout(60):
            with pytest.raises(errors.InternalError):
                await stream.predict(CLOSES, 1)
            assert (await stream.predict(CLOSES, 3)).horizon == 3


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_wrong_answer_is_the_error_of_its_thread_and_the_next_call_is_answered(wrong):
    def first(request: pb.StreamItem) -> bytes:
        return wrong(request) if request.predict.horizon == 1 else good(request)

    with service_with_streams(first) as target, market_inference.Client(target) as client, client.stream() as stream:
        with pytest.raises(errors.InternalError):
            stream.predict(CLOSES, 1).result(60)
        assert stream.predict(CLOSES, 3).result(60).horizon == 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_bug_of_the_client_fails_the_waiters_and_the_next_call_is_answered(monkeypatch):
    async def bug(raw: bytes) -> None:
        monkeypatch.undo()
        raise KeyError("bug")

    with service_with_streams(good) as target:
        async with market_inference.AsyncClient(target) as client, client.stream() as stream, asyncio.timeout(60):
            monkeypatch.setattr(stream._lane, "_take", bug)
            with pytest.raises(errors.InternalError, match="KeyError"):
                await stream.predict(CLOSES, 3)
            assert (await stream.predict(CLOSES, 3)).horizon == 3


async def test_calls_in_company_are_unary_where_the_service_has_no_streams(service):
    async with market_inference.AsyncClient(service.target) as client:
        for _ in range(2):
            found = await asyncio.gather(*(client.predict([1.0] * 40, 3) for _ in range(5)))
            assert [one.horizon for one in found] == [3] * 5
        assert client._lane is not None
        assert client._lane.refused
    assert service.methods_called == ["Predict"] * 10


def test_threads_are_unary_where_the_service_has_no_streams(service):
    with market_inference.Client(service.target) as client, ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: client.predict([1.0] * 40, 3), range(40)))
    assert [one.horizon for one in found] == [3] * 40
    assert service.methods_called == ["Predict"] * 40


def test_a_child_process_does_not_use_its_parents_lane(service, monkeypatch):
    with market_inference.Client(service.target) as client:
        assert client._lane.usable
        monkeypatch.setattr(os, "getpid", lambda: -1)
        assert not client._lane.usable
        monkeypatch.undo()


def test_a_message_holds_the_requests_as_they_are_and_the_fields_of_each_call():
    async def ask() -> bytes:
        lane = Lane(None, None)
        lane._task = asyncio.create_task(asyncio.sleep(0))
        lane._credits = 2
        future = asyncio.get_running_loop().create_future()
        lane.ask("Predict", b"\x10\x05", future, timeout=1.5, request_id="r-1", priority="batch", traceparent="t")
        withdrawn = lane.ask("ComputeIndicators", b"", future)
        lane.ask("Predict", b"\x10\x06", future)
        message = lane._message()
        lane.withdraw(withdrawn)
        assert lane._message()[2:] == pb.StreamItem(id=2, cancel=pb.StreamCancel()).SerializeToString()
        return message

    first, second = pb.StreamRequest.FromString(asyncio.run(ask())).requests
    assert (first.id, first.request_id, first.priority, first.traceparent) == (1, "r-1", "batch", "t")
    assert first.timeout.ToNanoseconds() == 1_500_000_000
    assert first.predict == pb.PredictRequest(horizon=5)
    assert second == pb.StreamItem(id=2, indicators=pb.ComputeIndicatorsRequest())


@pytest.mark.parametrize("seconds", [0.0, 1e-10, 1e-9])
def test_a_deadline_that_passed_before_the_sending_is_a_timeout_that_the_service_takes(seconds):
    async def ask() -> bytes:
        lane = Lane(None, None)
        lane._task = asyncio.create_task(asyncio.sleep(0))
        lane._credits = 1
        lane.ask("Predict", b"", asyncio.get_running_loop().create_future(), timeout=seconds)
        return lane._message()

    (request,) = pb.StreamRequest.FromString(asyncio.run(ask())).requests
    assert request.timeout.ToNanoseconds() == 1


def test_a_call_of_many_requests_sends_some_ahead_and_a_lone_request_none():
    call = calls.Call("Predict", [bytes([at]) for at in range(6)], lambda answers: answers)
    assert list(call.ahead(0, {})) == [(0, b"\0"), (1, b"\1"), (2, b"\2"), (3, b"\3")]
    assert list(call.ahead(1, {1: None, 2: None, 3: None})) == [(4, b"\4")]
    assert list(call.ahead(4, {})) == [(4, b"\4"), (5, b"\5")]
    assert list(calls.Call("Predict", [b"alone"], lambda answers: answers).ahead(0, {})) == []


def test_requests_of_threads_that_were_answered_together_share_a_message(monkeypatch):
    """The lane pauses, within bounds, until as many threads have asked as the newest message answered."""
    lane = ThreadedLane(None)
    lane._lane = Lane.__new__(Lane)
    pauses = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        lane._asked.append(())

    monkeypatch.setattr(lane_module.time, "sleep", pause)
    for answered, asked, expected in ((0, 1, 0), (1, 1, 0), (2, 1, 1), (9, 1, 2)):
        lane._lane.answered, lane._asked = answered, deque([()] * asked)
        pauses.clear()
        lane._wait_for_company()
        assert len(pauses) == expected
        assert lane._lane.answered == 0


MANY = [[float(at)] * 40 for at in range(600)]
"""More series than two requests hold."""


def answered_together(request: pb.StreamItem, waiting: list[pb.StreamItem], count: int) -> bytes:
    """Nothing before `count` requests are there, then the answers to all, the last request's first."""
    waiting.append(request)
    return b"" if len(waiting) < count else b"".join(map(good, reversed(waiting)))


async def test_callers_ask_again_before_the_whole_message_is_handed_out(monkeypatch):
    """64 callers, answered by one message: the next requests of 16 leave before the others have their answers."""
    waiting: list[pb.StreamItem] = []
    sent: list[int] = []
    whole = Lane._message

    def message(lane: Lane) -> bytes:
        raw = whole(lane)
        sent.extend([len(pb.StreamRequest.FromString(raw).requests)] if raw else [])
        return raw

    def first(request: pb.StreamItem) -> bytes:
        return answered_together(request, waiting, 64) if request.predict.horizon == 1 else good(request)

    async def caller(stream: Any) -> None:
        for horizon in (1, 2):
            assert (await stream.predict(CLOSES, horizon)).horizon == horizon

    monkeypatch.setattr(Lane, "_message", message)
    with service_with_streams(first, in_flight=64) as target:
        async with market_inference.AsyncClient(target) as client, client.stream() as stream, asyncio.timeout(60):
            await asyncio.gather(*(caller(stream) for _ in range(64)))
    assert sent[:2] == [64, 16]


def test_the_requests_of_one_call_are_in_flight_together():
    waiting: list[pb.StreamItem] = []
    service = service_with_streams(lambda request: answered_together(request, waiting, 3))
    with service as target, market_inference.Client(target) as client:
        found = client.predict(MANY, 2, request_id="mine", timeout=60)
    assert found.point[:, 0].tolist() == [float(at) for at in range(600)]
    assert [len(request.predict.series) for request in waiting] == [256, 256, 88]
    assert {request.request_id for request in waiting} == {"mine"}


async def test_the_requests_of_one_call_to_await_are_in_flight_together():
    waiting: list[pb.StreamItem] = []
    with service_with_streams(lambda request: answered_together(request, waiting, 3)) as target:
        async with market_inference.AsyncClient(target) as client:
            found = await client.predict(MANY, 2, timeout=60)
    assert found.point[:, 0].tolist() == [float(at) for at in range(600)]


def test_at_most_four_requests_of_a_call_are_in_flight():
    seen: list[pb.StreamItem] = []
    with (
        service_with_streams(lambda request: answered_together(request, seen, 5)) as target,
        ThreadPoolExecutor(1) as thread,
    ):
        client = market_inference.Client(target)
        calling = thread.submit(client.predict, MANY * 3, 2)
        eventually(lambda: len(seen) == calls.REQUESTS_TOGETHER)
        client.close()
        assert isinstance(calling.exception(60), errors.MarketInferenceError)
    assert len(seen) == calls.REQUESTS_TOGETHER


async def test_a_call_whose_first_request_fails_withdraws_the_others():
    refusal = status_pb2.Status(code=3, message="not now")
    requests: list[pb.StreamItem] = []

    def first(request: pb.StreamItem) -> bytes:
        requests.append(request)
        return answer(request.id, error=refusal) if len(requests) == 1 else b""

    with service_with_streams(first) as target:
        async with market_inference.AsyncClient(target) as client, asyncio.timeout(60):
            with pytest.raises(errors.InvalidRequestError, match="not now"):
                await client.predict(MANY, 2)
            assert client._lane is not None
            assert client._lane._cancels
        with market_inference.Client(target) as threaded:
            assert threaded.predict(MANY, 2, timeout=60).point.shape == (600, 2)


def test_answers_keep_their_places_when_a_request_cannot_be_sent(monkeypatch):
    """As when another thread closes the client in the middle of a call."""
    with service_with_streams(good) as target, market_inference.Client(target) as client:
        ask, asked = client._lane.ask, []

        def ask_or_refuse(*arguments: Any, **options: Any) -> None:
            asked.append(arguments)
            if len(asked) == calls.REQUESTS_TOGETHER + 1:
                raise errors.ClosedError("closed")
            ask(*arguments, **options)

        monkeypatch.setattr(client._lane, "ask", ask_or_refuse)
        found = client.predict(MANY * 3, 2, timeout=60)
    failed = [isinstance(one, errors.MarketInferenceError) for one in found]
    assert sum(failed) == 256
    for at, one in enumerate(found):
        assert failed[at] or one.point[0] == at % len(MANY)


@pytest.mark.parametrize("in_flight", [8, 0], ids=["in flight", "waiting for a stream"])
@pytest.mark.parametrize("timeout", [None, 0.2], ids=["of the client", "of the call"])
async def test_a_silent_service_costs_a_call_on_a_stream_its_timeout(timeout, in_flight):
    with service_with_streams(lambda _: b"", in_flight) as target:
        client = market_inference.AsyncClient(target, timeout=60 if timeout else 0.2)
        async with client, client.stream() as stream:
            with pytest.raises(errors.DeadlineExceededError):
                await asyncio.wait_for(stream.predict(CLOSES, 1, timeout=timeout), 60)


async def test_each_call_in_company_ends_at_the_deadline_of_the_call():
    """Deadlines in any order, with the single timer of the lane."""
    with service_with_streams(lambda _: b"", in_flight=3) as target:
        async with market_inference.AsyncClient(target, timeout=600) as client, asyncio.timeout(60):
            lone = asyncio.create_task(client.predict(CLOSES, 1))
            await asyncio.sleep(0)
            began = asyncio.get_running_loop().time()
            calls_ = [asyncio.create_task(client.predict(CLOSES, 1, timeout=one)) for one in (0.4, 0.2, 300, 0.6, 0.3)]
            for at, seconds in ((1, 0.2), (4, 0.3), (0, 0.4), (3, 0.6)):
                with pytest.raises(errors.DeadlineExceededError):
                    await calls_[at]
                assert asyncio.get_running_loop().time() - began >= seconds
            assert not calls_[2].done()
            assert client._lane is not None
            assert client._lane._look is not None
            for task in (lone, calls_[2]):
                task.cancel()


async def test_requests_wait_for_a_new_stream_after_the_end_of_an_old_one(monkeypatch):
    paused, broken = asyncio.Event(), asyncio.Event()

    def pause(*_: float) -> float:
        paused.set()
        return 60.0

    class Call:
        opened = False

        async def read(self) -> bytes:
            if self.opened:
                await broken.wait()
                raise errors.UnavailableError("the connection ended", code="UNAVAILABLE")
            self.opened = True
            return pb.StreamResponse(credits=pb.StreamCredits(in_flight=1)).SerializeToString()

        async def write(self, message: bytes) -> None:
            made._open_until = 0.0  # the stream was opened long ago
            broken.set()

        def cancel(self) -> None:
            pass

    monkeypatch.setattr(lane_module, "pause", pause)
    made = Lane(lambda metadata: Call(), SimpleNamespace(key=""), resends=1, timeout=600.0)
    waiters = [asyncio.get_running_loop().create_future() for _ in range(2)]
    for waiter in waiters:
        made.ask("Predict", b"", waiter, timeout=600.0)
    async with asyncio.timeout(60):
        await paused.wait()
    made._end_late()
    assert not any(waiter.done() for waiter in waiters)
    await made.close()
    assert all(isinstance(waiter.exception(), errors.CancelledError) for waiter in waiters)


def test_threads_do_not_wait_for_a_silent_service_longer_than_their_timeout():
    with service_with_streams(lambda _: b"") as target:
        client = market_inference.Client(target, timeout=0.2)
        with client, client.stream() as stream:
            late = stream.predict(CLOSES, 1)
            with pytest.raises(errors.DeadlineExceededError):
                late.result(60)
