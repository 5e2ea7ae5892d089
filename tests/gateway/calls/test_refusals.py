"""A call that full replicas have just refused is refused by the gateway, before anything is spent on it."""

from types import SimpleNamespace

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from gateway.access.auth import Client
from gateway.calls import refusals
from gateway.calls.call import Call
from gateway.calls.refusals import Refusals
from gateway.calls.request import Request
from market_inference.contract import errors, methods
from market_inference.contract.generated import inference_pb2 as pb
from tests.gateway.conftest import GOOD, reply

ONE, TWO = SimpleNamespace(address="one"), SimpleNamespace(address="two")
FULL = errors.OverloadedError("the queue is full", retry_after=1.0)


def call(
    size=1000, *, client="me", method="Predict", model="auto", seconds=10.0, priority="interactive", answer=500, bars=90
) -> Call:
    asked = pb.PredictRequest(series=[pb.Series(values=[1.0] * bars)], horizon=10)
    if method == "ComputeIndicators":
        panel = pb.Panel(close=[1.0] * bars)
        asked = pb.ComputeIndicatorsRequest(panels=[panel], indicators=[pb.IndicatorSpec(name="HT_SINE")])
    made = Call(methods.METHODS[method], "id", 5.0, 5.0 + seconds, priority, raw=asked.SerializeToString())
    made.client, made.model = Client(client, frozenset()), model
    made.size_bytes, made.held_bytes = size, size + answer
    return made


@pytest.fixture
def clock(monkeypatch):
    at = SimpleNamespace(now=lambda: at.time, time=100.0)
    monkeypatch.setattr(refusals, "deadline", at)
    return at


def refused(found: Refusals, asked: Call, *replicas) -> bool:
    try:
        found.check(asked, replicas or (ONE,))
    except errors.OverloadedError:
        return True
    return False


def note(found: Refusals, asked: Call, error: errors.ServiceError = FULL, replica: str = "one") -> None:
    request = Request([asked])
    request.replica = replica
    found.note(request, error.status("id"))


def test_a_refusal_holds_for_half_of_the_time_that_it_names(clock):
    found = Refusals()
    assert not refused(found, call())
    note(found, call())
    assert refused(found, call())
    clock.time += 0.49
    with pytest.raises(errors.OverloadedError) as told:
        found.check(call(), (ONE,))
    assert told.value.retry_after == pytest.approx(0.51)
    clock.time += 0.02
    assert not refused(found, call())


def test_a_refusal_holds_for_a_second_at_most(clock):
    found = Refusals()
    note(found, call(), errors.OverloadedError("full", retry_after=10.0))
    clock.time += refusals.MOST_SECONDS - 0.01
    assert refused(found, call())
    clock.time += 0.02
    assert not refused(found, call())


@pytest.mark.parametrize(
    "other",
    [
        {"client": "you"},
        {"method": "ComputeIndicators"},
        {"model": "vol_rw"},
        {"priority": "batch"},
        {"size": 700},
        {"size": 900, "answer": 200},
        {"bars": 60},
        {"seconds": 11.0},
    ],
    ids=str,
)
def test_a_call_that_a_replica_may_take_is_no_call_alike(clock, other):
    found = Refusals()
    note(found, call())
    assert not refused(found, call(**other))


@pytest.mark.parametrize("other", [{"size": 900}, {"size": 5000}, {"seconds": 1.0}, {"seconds": 10.0001}], ids=str)
def test_a_call_with_as_much_work_in_less_time_is_refused(clock, other):
    found = Refusals()
    note(found, call())
    assert refused(found, call(**other))


def test_cheap_work_of_more_bytes_is_no_call_alike(clock):
    found = Refusals()
    note(found, call(method="ComputeIndicators"))
    cheap = call(2000, method="ComputeIndicators", answer=2000)
    cheap.raw = pb.ComputeIndicatorsRequest(
        panels=[pb.Panel(close=[1.0] * 200)], indicators=[pb.IndicatorSpec(name="SMA")]
    ).SerializeToString()
    assert not refused(found, cheap)
    assert refused(found, call(2000, method="ComputeIndicators"))


def test_a_call_that_cannot_be_read_is_left_to_the_check(clock):
    found = Refusals()
    note(found, call(method="ComputeIndicators"))
    for damaged in (b"\xff", b"\x12\x01\xff"):
        asked = call(9000, method="ComputeIndicators")
        asked.raw = damaged
        assert not refused(found, asked)


def test_a_call_goes_to_a_replica_that_has_not_refused_it(clock):
    found = Refusals()
    note(found, call())
    assert not refused(found, call(), ONE, TWO)
    note(found, call(), replica="two")
    assert refused(found, call(), ONE, TWO)


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidRequestError([errors.Violation("series", "is wrong")]),
        errors.ServiceUnavailableError("no model", retry_after=5.0),
        errors.OverloadedError("full, and nobody knows until when"),
    ],
    ids=["invalid", "unavailable", "no time"],
)
def test_other_errors_of_a_replica_hold_back_no_call(clock, error):
    found = Refusals()
    note(found, call(), error)
    assert not refused(found, call())


def test_kinds_of_calls_are_forgotten_once_their_refusals_are_over(clock, monkeypatch):
    monkeypatch.setattr(refusals, "_MOST_KINDS", 3)
    found = Refusals()
    for number in range(3):
        note(found, call(client=str(number)))
    clock.time += 1.0
    note(found, call())
    assert len(found._found) == 1
    assert refused(found, call())


def retry_seconds(failure: grpc.aio.AioRpcError) -> float:
    status = status_pb2.Status.FromString(dict(failure.trailing_metadata())["grpc-status-details-bin"])
    retry = error_details_pb2.RetryInfo()
    next(detail for detail in status.details if detail.Is(retry.DESCRIPTOR)).Unpack(retry)
    return retry.retry_delay.ToMilliseconds() / 1000


async def test_a_refused_call_that_comes_again_at_once_reaches_no_replica(start):
    async with start(2) as gateway:
        for replica in gateway.replicas:
            replica.behave = lambda envelope: reply(envelope, errors.OverloadedError("full", retry_after=60.0))
        failures = []
        for _ in range(40):
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await gateway.predict()
            assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            failures.append(retry_seconds(failure.value))
        # Both replicas have refused such a call by then, each once or a few times.
        assert min(replica.asked for replica in gateway.replicas) >= 1
        assert sum(replica.asked for replica in gateway.replicas) < 40
        assert 50 < min(failures) <= max(failures) <= 60
        for replica in gateway.replicas:
            replica.behave = reply
        other = pb.PredictRequest(series=GOOD.series, horizon=3, model="vol_rw")
        assert (await gateway.predict(other)).request_id
