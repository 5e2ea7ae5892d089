"""A replica whose replies are none: the request goes to another replica, and other requests are not touched."""

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyDetail
from google.rpc import status_pb2

from market_inference.contract.generated import exchange_pb2
from market_inference.contract.generated import inference_pb2 as pb
from tests.gateway.conftest import GOOD, reply


def detail(name: str) -> AnyDetail:
    return AnyDetail(type_url=f"type.googleapis.com/google.rpc.{name}", value=b"\xff\xff")


def error(code: int, message: str = "", **more: Any) -> dict[str, Any]:
    return {"error": status_pb2.Status(code=code, message=message, **more)}


BROKEN = {
    "OK as an error": error(0, "fine"),
    "unknown code": error(9999),
    "negative code": error(-1),
    "large": error(3, "x" * 1_000_000),
    "reason": error(3, details=[detail("ErrorInfo")]),
    "delay": error(8, details=[detail("RetryInfo")]),
    "nothing": {},
    "another outcome": {"watch": exchange_pb2.WatchReply(response=b"x")},
}


@pytest.fixture(params=["grpc", "unix"])
def carrier(request) -> str:
    return request.param


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
async def test_a_reply_that_is_none_is_the_replicas_failure_alone(start, broken):
    """The call hung, or ended without an answer and without an error, or the stream with every call on it ended."""
    release = asyncio.Event()

    async def slow(envelope):
        await release.wait()
        return reply(envelope)

    async with start(2) as gateway:
        first, second = gateway.replicas
        first.behave = second.behave = slow
        others = [gateway.predict() for _ in range(4)]
        for replica in gateway.replicas:
            async with asyncio.timeout(60):
                await replica.came.wait()
        release.set()
        first.behave = lambda envelope: exchange_pb2.Reply(id=envelope.id, **broken)
        second.behave = reply
        for _ in range(4):
            assert (await gateway.predict()).request_id
        assert all([(await other).request_id for other in others])
        second.behave = first.behave
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await gateway.predict(GOOD)
        assert refused.value.code() is grpc.StatusCode.INTERNAL


async def test_a_session_whose_replies_are_none_ends_with_an_error(start):
    async with start(1) as gateway:
        gateway.replicas[0].behave = lambda envelope: exchange_pb2.Reply(id=envelope.id, **error(0))
        opening = pb.WatchOpen(
            symbol="A", history=pb.Panel(close=[1.0] * 40), indicators=[pb.IndicatorSpec(name="RSI")]
        )
        call = gateway.stub.Watch(iter([pb.WatchRequest(open=opening)]), metadata=gateway.metadata, timeout=60.0)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
        assert refused.value.code() is grpc.StatusCode.INTERNAL
