"""A column that ends within a number gives a typed error for the call, and does not affect other calls."""

import asyncio
import struct

import grpc
import pytest

from market_inference.contract import methods
from market_inference.contract.errors import InvalidRequestError
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.generated import requests_pb2
from market_inference.contract.validation.check import check

METHOD = methods.METHODS["ComputeIndicators"]
SMA = pb.IndicatorSpec(name="SMA")


def torn() -> bytes:
    panel = requests_pb2.PanelColumns(open=b"abc", close=struct.pack("<d", 1.0))
    asked = requests_pb2.ComputeIndicatorsColumns(panels=[panel], indicators=[SMA.SerializeToString()])
    return asked.SerializeToString()


def test_a_torn_column_is_refused_and_no_bug():
    with pytest.raises(InvalidRequestError):
        check(METHOD, torn())


async def test_those_that_came_with_torn_ones_are_answered(start):
    async with start(1) as gateway:
        stream = gateway.channel.stream_stream(methods.METHODS["Stream"].path)(metadata=gateway.metadata)
        await stream.read()
        good = pb.PredictRequest(series=[pb.Series(values=[1.0, 2.0] * 20)], horizon=3)
        items = [requests_pb2.StreamItemColumns(id=number, indicators=torn()) for number in (1, 2)]
        items.append(requests_pb2.StreamItemColumns(id=3, predict=good.SerializeToString()))
        await stream.write(requests_pb2.StreamColumns(requests=items).SerializeToString())
        found: dict[int, pb.StreamResult] = {}
        async with asyncio.timeout(60):
            while len(found) < 3:
                answers = pb.StreamResponse.FromString(await stream.read()).answers
                found.update({answer.id: answer for answer in answers})
        assert {found[number].error.code for number in (1, 2)} == {grpc.StatusCode.INVALID_ARGUMENT.value[0]}
        assert found[3].HasField("predict")
        await stream.done_writing()
