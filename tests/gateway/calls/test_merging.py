"""Request merging is invisible to callers: every merged call has a separate answer, id and error.

All requests of one Stream message are ready in one loop turn, so the tests know the merged requests.
"""

import asyncio
import math
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from gateway.calls import merging
from market_inference.contract import errors
from market_inference.contract.generated import exchange_pb2
from market_inference.contract.generated import inference_pb2 as pb


def predict(*symbols: str, horizon: int = 3) -> pb.PredictRequest:
    series = [pb.Series(symbol=symbol, values=[float(len(symbol)), 2.0] * 20) for symbol in symbols]
    return pb.PredictRequest(series=series, horizon=horizon)


def answered(envelope: exchange_pb2.Envelope, *bad: str) -> exchange_pb2.Reply:
    """Every series' symbol and first value come back; those named in `bad` fail."""
    asked = pb.PredictRequest.FromString(envelope.predict)
    forecasts, failed = [], []
    for place, series in enumerate(asked.series):
        forecast = pb.SeriesForecast(symbol=series.symbol)
        if series.symbol in bad:
            failed.append(place)
            forecast.error.CopyFrom(errors.InternalError().status(envelope.request_id))
        else:
            forecast.forecast.point.append(series.values[0])
        forecasts.append(forecast)
    answer = pb.PredictResponse(forecasts=forecasts, quantile_levels=[0.5], model="m", request_id=envelope.request_id)
    timing = exchange_pb2.Timing(device_us=1000 * len(asked.series), batch_items=len(asked.series))
    reply = exchange_pb2.Reply(id=envelope.id, response=answer.SerializeToString(), timing=timing)
    if envelope.calls:
        reply.failed.extend(failed)
    elif failed:
        return exchange_pb2.Reply(id=envelope.id, error=errors.InternalError().status(envelope.request_id))
    return reply


class Asker:
    """One Stream of a gateway in front of one replica that records the requests."""

    def __init__(self, gateway: Any, call: Any) -> None:
        self.gateway = gateway
        self._call = call
        self._writing = asyncio.Lock()
        self.asked: list[exchange_pb2.Envelope] = []
        gateway.replicas[0].behave = self.behave
        self.bad: tuple[str, ...] = ()
        self.device_us = 0

    def behave(self, envelope):
        self.asked.append(envelope)
        reply = answered(envelope, *self.bad)
        reply.timing.device_us += self.device_us
        return reply

    async def ask(self, *requests: pb.PredictRequest) -> dict[int, pb.StreamResult]:
        await self.send(*(pb.StreamItem(id=n, predict=request) for n, request in enumerate(requests, 1)))
        return await self.results(len(requests))

    async def send(self, *items: pb.StreamItem) -> None:
        async with self._writing:  # gRPC refuses a write that begins before another has ended
            await self._call.write(pb.StreamRequest(requests=items))

    async def results(self, count: int) -> dict[int, pb.StreamResult]:
        found: dict[int, pb.StreamResult] = {}
        while len(found) < count:
            found.update({result.id: result for result in (await self._call.read()).answers})
        return found

    async def cancel(self, *ids: int) -> None:
        await self.send(*(pb.StreamItem(id=n, cancel=pb.StreamCancel()) for n in ids))

    @property
    def calls(self) -> list[int]:
        return [envelope.calls for envelope in self.asked]


@pytest.fixture(autouse=True)
def whole_messages(monkeypatch):
    """The requests of a message arrive together, however long the gateway takes to read them on a busy machine."""
    monkeypatch.setattr("gateway.streams.slices.TURN_SECONDS", 60.0)
    monkeypatch.setattr(merging, "_DEADLINE_SPREAD_SECONDS", 60.0)


@pytest.fixture
def asking(start):
    @asynccontextmanager
    async def run(*metadata, **settings):
        async with start(1, **settings) as gateway:
            call = gateway.stub.Stream(metadata=(*gateway.metadata, ("x-request-id", "call"), *metadata))
            assert (await call.read()).HasField("credits")
            yield Asker(gateway, call)
            await call.done_writing()

    return run


def symbols(result: pb.StreamResult) -> list[tuple[str, float]]:
    return [(one.symbol, one.forecast.point[0]) for one in result.predict.forecasts]


async def test_each_gets_its_own_answer_under_its_own_id(asking):
    async with asking() as asker:
        found = await asker.ask(predict("a"), predict("bb", "ccc"), predict("dddd"))
    assert asker.calls == [3]
    assert [symbols(found[n]) for n in (1, 2, 3)] == [[("a", 1)], [("bb", 2), ("ccc", 3)], [("dddd", 4)]]
    for n, result in found.items():
        assert result.predict.request_id == f"call/{n}"
        assert list(result.predict.quantile_levels) == [0.5]
        assert result.predict.model == "m"


async def test_those_who_ask_for_something_else_travel_by_themselves(asking):
    async with asking() as asker:
        await asker.ask(predict("a"), predict("b"), predict("c", horizon=4))
    assert sorted(asker.calls) == [0, 2]


async def test_groups_of_different_calls_never_become_one(asking):
    """Equal labels of two calls are different groups, and labels are counted by the series of the request."""
    grouped = [predict("a", "b"), predict("c", "d")]
    for request in grouped:
        request.groups.extend(["x", "x"])
    covariates = [predict("e"), predict("f")]
    for request in covariates:
        request.covariates.append("volume")
    async with asking() as asker:
        found = await asker.ask(*grouped, *covariates)
    assert sorted(asker.calls) == [0, 0, 2]
    assert [symbols(found[n])[0] for n in (1, 2, 3, 4)] == [("a", 1), ("c", 1), ("e", 1), ("f", 1)]


async def test_a_request_holds_so_many_items(asking):
    async with asking() as asker:
        found = await asker.ask(*(predict("s" * n) for n in range(1, merging.MOST_ITEMS + 4)))
    assert asker.calls == [merging.MOST_ITEMS, 3]
    assert all(symbols(result) == [("s" * n, n)] for n, result in found.items())


async def test_one_whose_item_fails_is_sent_again_alone(asking):
    async with asking() as asker:
        asker.bad = ("bb",)
        found = await asker.ask(predict("a"), predict("bb"), predict("ccc"))
    assert asker.calls == [3, 0]
    assert symbols(found[1]) + symbols(found[3]) == [("a", 1), ("ccc", 3)]
    assert found[2].error.code == grpc.StatusCode.INTERNAL.value[0]


@pytest.mark.parametrize("value", [math.nan, math.inf])
async def test_a_broken_rule_is_its_callers_alone(asking, value):
    broken = predict("bad")
    broken.series[0].values[7] = value
    async with asking() as asker:
        found = await asker.ask(predict("a"), broken, predict("ccc"))
    assert asker.calls == [0, 0]
    assert symbols(found[1]) + symbols(found[3]) == [("a", 1), ("ccc", 3)]
    assert "series[0].values[7]" in found[2].error.message


async def test_a_request_without_items_spoils_none(asking):
    async with asking() as asker:
        found = await asker.ask(predict("a"), predict(), predict("ccc"))
    assert asker.calls == [2]
    assert symbols(found[1]) + symbols(found[3]) == [("a", 1), ("ccc", 3)]
    assert "series" in found[2].error.message


def request_ids(status) -> list[str]:
    info = error_details_pb2.RequestInfo()
    return [info.request_id for detail in status.details if detail.Unpack(info)]


async def test_what_concerns_all_is_told_to_all_under_their_own_ids(asking):
    async with asking() as asker:
        overloaded = errors.OverloadedError("full", retry_after=1)
        asker.gateway.replicas[0].behave = lambda envelope: exchange_pb2.Reply(
            id=envelope.id, error=overloaded.status(envelope.request_id)
        )
        found = await asker.ask(predict("a"), predict("b"), predict("c"))
    assert asker.gateway.replicas[0].asked == 1
    for n, result in found.items():
        assert result.error.message == "full"
        assert request_ids(result.error) == [f"call/{n}"]


async def test_a_mistake_that_is_named_by_its_place_is_named_by_the_callers_own(asking):
    async with asking() as asker:

        def behave(envelope):
            asker.asked.append(envelope)
            if not envelope.calls and b"good" in envelope.predict:
                return answered(envelope)
            place = f"series[{envelope.calls // 2}].values"
            error = errors.InvalidRequestError([errors.Violation(place, "is wrong", "rule")])
            return exchange_pb2.Reply(id=envelope.id, error=error.status(envelope.request_id))

        asker.gateway.replicas[0].behave = behave
        found = await asker.ask(predict("good"), predict("bad"))
    assert asker.calls == [2, 0, 0]
    assert symbols(found[1]) == [("good", 4)]
    assert "series[0].values" in found[2].error.message


async def test_who_leaves_is_left_out_and_the_others_stay(asking):
    async with asking() as asker:
        replica = asker.gateway.replicas[0]
        came: asyncio.Future[exchange_pb2.Envelope] = asyncio.get_running_loop().create_future()
        replica.behave = came.set_result
        gone: list[int] = []

        def withdraw(sent):
            gone.extend(sent.cancel.items)
            return answered(came.result())

        replica.withdraw = withdraw
        asked = asyncio.create_task(asker.ask(predict("a"), predict("bb", "ccc"), predict("dddd")))
        await came
        await asker.cancel(2)
        found = await asked
    assert gone == [1, 2]
    assert symbols(found[1]) + symbols(found[3]) == [("a", 1), ("dddd", 4)]
    assert found[2].error.code == grpc.StatusCode.CANCELLED.value[0]


async def test_a_request_that_all_have_left_is_withdrawn(asking):
    async with asking() as asker:
        replica = asker.gateway.replicas[0]
        came: asyncio.Future[exchange_pb2.Envelope] = asyncio.get_running_loop().create_future()
        gone: asyncio.Future[exchange_pb2.Envelope] = asyncio.get_running_loop().create_future()
        replica.behave, replica.withdraw = came.set_result, gone.set_result
        asked = asyncio.create_task(asker.ask(predict("a"), predict("b")))
        await came
        await asker.cancel(1, 2)
        assert (await gone).id == (await came).id
        assert not gone.result().cancel.items
        assert {result.error.code for result in (await asked).values()} == {grpc.StatusCode.CANCELLED.value[0]}


async def test_a_traced_request_goes_alone(asking):
    sampled = f"00-{'a' * 32}-{'b' * 16}-01"
    async with asking(("traceparent", sampled)) as asker:
        await asker.ask(predict("a"), predict("b"))
    assert asker.calls == [0, 0]
    assert {envelope.traceparent for envelope in asker.asked} == {sampled}


async def test_all_of_a_lost_replica_are_answered_by_another(start):
    async with start(2) as gateway:
        lost = []

        def dies(envelope):
            lost.append(envelope.calls)
            raise ConnectionResetError

        first, second = gateway.replicas
        first.behave, second.behave = dies, answered
        call = gateway.stub.Stream(metadata=gateway.metadata)
        await call.read()
        asker = Asker(gateway, call)
        first.behave, second.behave = dies, answered
        while not lost:
            found = await asker.ask(predict("a"), predict("bb"))
            assert symbols(found[1]) + symbols(found[2]) == [("a", 1), ("bb", 2)]
        await call.done_writing()
    assert set(lost) == {2}


async def test_every_call_is_counted_and_told_its_share(asking, monkeypatch):
    told = []
    monkeypatch.setattr("gateway.metrics.Metrics.answered", lambda self, call, *_: told.append(call))
    async with asking() as asker:
        await asker.ask(predict("a"), predict("b"))
    calls = [call for call in told if call.method.name == "Predict"]
    assert [call.timing.batch_items for call in calls] == [2, 2]
    assert [call.device_seconds for call in calls] == pytest.approx([0.001, 0.001])
    assert all(call.gateway_seconds > 0 and call.attempts == 1 for call in calls)


async def test_an_internal_error_is_told_to_nobody_before_each_was_sent_alone(asking):
    async with asking() as asker:

        def behave(envelope):
            asker.asked.append(envelope)
            if envelope.calls:
                error = errors.InternalError().status(envelope.request_id)
                return exchange_pb2.Reply(id=envelope.id, error=error)
            return answered(envelope)

        asker.gateway.replicas[0].behave = behave
        found = await asker.ask(predict("a"), predict("bb"))
    assert asker.calls == [2, 0, 0]
    assert symbols(found[1]) + symbols(found[2]) == [("a", 1), ("bb", 2)]


async def test_to_be_sent_again_alone_is_not_counted_as_a_resend(asking, monkeypatch):
    told = []
    monkeypatch.setattr("gateway.metrics.Metrics.answered", lambda self, call, *_: told.append(call))
    async with asking() as asker:
        asker.bad = ("bb",)
        await asker.ask(predict("a"), predict("bb"))
    calls = [call for call in told if call.method.name == "Predict"]
    assert [call.attempts for call in calls] == [1, 1]
    assert all(call.replica for call in calls)


async def test_who_is_in_a_hurry_goes_alone(asking, monkeypatch):
    monkeypatch.setattr(merging, "_SHORT_SECONDS", 21.0)
    async with asking() as asker:
        items = [pb.StreamItem(id=n, predict=predict("a")) for n in (1, 2)]
        for item in items:
            item.timeout.FromSeconds(20)
        await asker.send(*items)
        assert len(await asker.results(2)) == 2
    assert asker.calls == [0, 0]


async def test_items_that_take_long_are_not_joined_once_that_is_known(asking):
    async with asking() as asker:
        asker.device_us = 100_000
        await asker.ask(predict("a"), predict("b"))
        await asker.ask(predict("a"), predict("b"))
    assert asker.calls == [2, 0, 0]


async def test_an_unsampled_trace_stays_unsampled(asking):
    unsampled = f"00-{'a' * 32}-{'b' * 16}-00"
    async with asking(("traceparent", unsampled)) as asker:
        await asker.ask(predict("a"), predict("b"))
    assert [(envelope.calls, envelope.traceparent) for envelope in asker.asked] == [(2, unsampled)]
