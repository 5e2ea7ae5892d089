"""Requests in the gateway, without sockets: every request completes once, releases the in-flight place and is freed."""

import asyncio
import gc
from typing import Any

import pytest

from gateway.access.auth import Authenticator
from gateway.access.caller import Caller
from gateway.calls import pipeline
from gateway.calls.call import Call
from gateway.calls.completion import Result
from gateway.calls.request import Request
from gateway.config import Config
from gateway.metrics import Metrics
from gateway.replicas.router import Router
from gateway.server import build
from market_inference.contract import keys, metadata, methods
from market_inference.contract.errors import (
    DeadlineExceededError,
    InternalError,
    OverloadedError,
    ServiceError,
    ServiceUnavailableError,
    UnknownModelError,
    reason_of,
)
from market_inference.contract.generated import exchange_pb2
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.validation import bounds
from market_inference.contract.validation.check import SMALL_BYTES

PREDICT = methods.METHODS["Predict"]
GOOD = pb.PredictRequest(series=[pb.Series(values=[1.0, 2.0] * 20)], horizon=3).SerializeToString()


class Replicas(Router):
    """Answers every series with an empty forecast, once `open` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.sent = 0
        self.replies: list[exchange_pb2.Reply] = []

    def send(self, request: Request) -> None:
        self.sent += 1
        request.waiting = asyncio.create_task(self._answer(request))

    async def _answer(self, request: Request) -> None:
        await self.open.wait()
        count = len(pb.PredictRequest.FromString(request.body).series)
        response = pb.PredictResponse(forecasts=[pb.SeriesForecast()] * count, model="m")
        reply = exchange_pb2.Reply(id=request.envelope.id, response=response.SerializeToString())
        reply.timing.queue_us = 5
        self.replies.append(reply)
        request.answer(reply)


class Gateway:
    def __init__(self, **settings: Any) -> None:
        secret, key = keys.issue("me")
        self._sent = (("x-api-key", secret),)
        self.replicas = Replicas()
        self.servicer = build(Config(**settings), Authenticator(keys.Keys([key])), self.replicas, Metrics())
        self.ends: list[Result | None] = []

    def call(self, raw: bytes = GOOD, **sent: str) -> Call:
        call = self.servicer.open(
            PREDICT, self.servicer.caller((*self._sent, *sent.items())), 5.0, str, self.ends.append
        )
        self.servicer.start(call, raw)
        return call

    async def calls(self, count: int, turns: int) -> list[Call]:
        """So many calls, so many loop turns after they were begun."""
        with self.servicer.together():
            begun = [self.call() for _ in range(count)]
        for _ in range(turns):
            await asyncio.sleep(0)
        return begun

    async def ended(self, count: int) -> list[Result | None]:
        async with asyncio.timeout(60):
            while len(self.ends) < count:  # noqa: ASYNC110 -- ends are told by a callback
                await asyncio.sleep(0)
        return self.ends


@pytest.fixture(params=[{}, {"units_per_second": 1e9}], ids=["without a budget", "with a budget"])
async def gateway(request):
    return Gateway(**request.param)


@pytest.mark.parametrize("count", [1, 2, 100])
async def test_calls_end_once_and_give_their_places_back(gateway, count):
    with gateway.servicer.together():
        calls = [gateway.call() for _ in range(count)]
    assert not any(call.finished for call in calls)
    assert gateway.servicer.in_flight == count
    gateway.replicas.open.set()
    ends = await gateway.ended(count)
    assert [pb.PredictResponse.FromString(end.response).model for end in ends] == ["m"] * count
    assert gateway.servicer.in_flight == 0


@pytest.mark.parametrize("turns", range(8))
async def test_a_call_may_be_cancelled_at_any_moment(gateway, turns):
    calls = await gateway.calls(3, turns)
    calls[1].cancel()
    calls[1].cancel()
    gateway.replicas.open.set()
    ends = await gateway.ended(3)
    assert ends.count(None) == 1
    assert gateway.servicer.in_flight == 0


@pytest.mark.parametrize("turns", range(8))
async def test_all_calls_of_a_request_may_be_cancelled(gateway, turns):
    calls = await gateway.calls(3, turns)
    for call in calls:
        call.cancel()
    assert await gateway.ended(3) == [None] * 3
    assert gateway.servicer.in_flight == 0


async def test_empty_requests_at_once_all_end(gateway):
    calls = [gateway.call(b"") for _ in range(8)]
    ends = await gateway.ended(8)
    assert {reason_of(end.status) for end in ends} == {"INVALID_REQUEST"}
    assert all(call.finished for call in calls)
    assert (gateway.servicer.in_flight, gateway.servicer.memory) == (0, 0)


LEVELS = [level / 100 for level in range(1, 100)]
LARGE = pb.PredictRequest(series=[pb.Series(values=[1.0, 2.0] * 15)] * 200, horizon=365, quantiles=LEVELS)


async def test_a_request_for_a_too_large_answer_is_refused_before_it_is_sent(gateway):
    assert gateway.call(LARGE.SerializeToString()).finished
    [result] = gateway.ends
    assert result.status.code == 3
    assert "max 33554432 bytes, expected 5" in result.status.message
    assert gateway.replicas.sent == 0


async def test_a_broken_rule_is_named_rather_than_the_size_of_the_answer(gateway):
    wrong = pb.PredictRequest()
    wrong.CopyFrom(LARGE)
    wrong.horizon = 366
    gateway.call(wrong.SerializeToString())
    assert "horizon" in gateway.ends[0].status.message


async def test_many_numbers_are_not_checked_for_an_answer_that_is_too_large(gateway, monkeypatch):
    checked = []
    monkeypatch.setattr(pipeline, "check_fast", lambda *given: checked.append(given))
    series = pb.Series(values=[1.0, 2.0] * 30)
    large = pb.PredictRequest(series=[series] * 200, horizon=365, quantiles=LEVELS).SerializeToString()
    assert len(large) > SMALL_BYTES
    assert gateway.call(large).finished
    assert reason_of(gateway.ends[0].status) == "ANSWER_TOO_LARGE"
    assert not checked


@pytest.mark.usefixtures("one_day")
async def test_the_fields_of_a_request_with_too_many_are_walked_once(gateway, monkeypatch):
    walked = []
    monkeypatch.setattr(bounds, "check", lambda *args, check=bounds.check: (walked.append(1), check(*args)))
    gateway.call(b"\x7a\x00" * 65_537)
    (end,) = await gateway.ended(1)
    assert end.status.message == "too many fields (max 1142)"
    assert walked == [1]


async def test_too_large_answers_of_large_requests_use_up_the_quota():
    gateway = Gateway(units_per_day=100_000)
    series = pb.Series(values=[1.0, 2.0] * 30)
    large = pb.PredictRequest(series=[series] * 200, horizon=365, quantiles=LEVELS).SerializeToString()
    calls = [gateway.call(large) for _ in range(20)]
    assert calls[0].units > 10_000
    assert [reason_of(gateway.ends[at].status) for at in (0, -1)] == ["ANSWER_TOO_LARGE", "QUOTA_EXCEEDED"]


def told(error: ServiceError) -> exchange_pb2.Reply:
    return exchange_pb2.Reply(error=error.status(""))


@pytest.mark.parametrize(
    ("answer", "attempts", "back"),
    [
        (ServiceUnavailableError("no inference replica is ready"), 0, True),
        (ServiceUnavailableError("the replica that served this request was lost"), 2, False),
        (told(ServiceUnavailableError("the model is not available")), 1, True),
        (OverloadedError("the replicas have as much in flight as they may"), 0, True),
        (told(OverloadedError("the queue is full")), 1, True),
        (DeadlineExceededError("the deadline passed while no replica was ready"), 0, True),
        (DeadlineExceededError("the deadline passed"), 1, False),
        (told(InternalError()), 1, False),
        (told(UnknownModelError("forecast", "m", [])), 1, False),
        (exchange_pb2.Reply(response=b""), 1, False),
    ],
)
@pytest.mark.usefixtures("one_day")
async def test_a_call_that_the_service_failed_before_any_work_costs_nothing(answer, attempts, back):
    gateway = Gateway(units_per_second=1e-9, burst_seconds=1e12, units_per_day=2000)
    account = gateway.servicer._pipeline.limits._budget
    spent = []

    def send(request):
        request.attempts = attempts
        spent.append(account.spend("me", request.calls[0].allowance, 0))
        request.answer(answer)

    gateway.replicas.send = send
    call = gateway.call()
    left = account.spend("me", call.allowance, 0)
    assert spent[0].day < 2000
    assert spent[0].burst < 1000
    assert left.day == (2000 if back else spent[0].day)
    assert left.burst == pytest.approx(1000 if back else spent[0].burst)
    trailers = dict(gateway.ends[0].trailers)
    assert trailers[metadata.QUOTA_REMAINING] == f"{left.day:.0f}"
    assert trailers[metadata.RATE_REMAINING] == f"{left.burst:.0f}"


async def test_a_call_whose_caller_leaves_stays_charged():
    gateway = Gateway(units_per_day=2000)
    (call,) = await gateway.calls(1, 0)
    units = call.units
    call.cancel()
    assert gateway.servicer._pipeline.limits._budget.spend("me", call.allowance, 0).day == 2000 - units


async def test_bytes_are_held_until_the_answer_has_left_or_there_is_none(gateway):
    calls = await gateway.calls(3, 0)
    held = gateway.servicer.memory
    assert held == 3 * (len(GOOD) + 3 * 10 * 8 + 160)
    calls[0].cancel()
    assert gateway.servicer.memory == held * 2 // 3
    gateway.replicas.open.set()
    await gateway.ended(3)
    assert gateway.servicer.memory == held * 2 // 3
    for call in calls[1:]:
        call.release()
        call.release()
    assert gateway.servicer.memory == 0


async def test_bytes_beyond_the_clients_limit_are_refused():
    gateway = Gateway(max_bytes_in_flight_per_client=1 << 20)
    large = pb.PredictRequest(series=[pb.Series(values=[1.0, 2.0] * 15)] * 2, horizon=365, quantiles=LEVELS)
    first, second = (gateway.call(large.SerializeToString()) for _ in range(2))
    assert not first.finished
    assert second.finished
    assert "bytes of requests and answers of this client" in gateway.ends[0].status.message
    first.cancel()
    assert not gateway.call(large.SerializeToString()).finished


async def test_what_is_refused_at_once_has_ended_before_it_is_begun(gateway):
    assert gateway.call(**{"x-api-key": "wrong"}).finished
    [end] = gateway.ends
    assert end.status.code == 16


async def test_nothing_is_left_for_the_collector(gateway):
    gc.collect()
    gc.disable()
    try:
        gateway.replicas.open.set()
        with gateway.servicer.together():
            for _ in range(100):
                gateway.call()
        gateway.call(pb.PredictRequest(horizon=3).SerializeToString())
        gateway.call(**{"x-api-key": "wrong"})
        await gateway.ended(102)
        for _ in range(5):  # callbacks that hold what has ended
            await asyncio.sleep(0)
        # By type(): some objects of other people answer isinstance() with a warning.
        assert not [found for found in gc.get_objects() if type(found) in (Call, Request, Caller)]
    finally:
        gc.enable()


async def test_an_ended_call_keeps_no_part_of_the_reply(gateway):
    """A part of a protobuf message keeps the memory of the whole message, here of the response."""
    gateway.replicas.open.set()
    call = gateway.call()
    await gateway.ended(1)
    [reply] = gateway.replicas.replies
    reply.timing.queue_us = 7
    assert call.timing.queue_us == 5
