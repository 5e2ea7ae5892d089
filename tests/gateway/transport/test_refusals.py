"""Every refusal on both transports says its reason and the id of its request."""

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from market_inference.contract.generated import inference_pb2 as pb

LEVELS = [level / 100 for level in range(1, 100)]
LARGE = pb.PredictRequest(series=[pb.Series(values=[1.0, 2.0] * 15)] * 200, horizon=365, quantiles=LEVELS)


@pytest.fixture(params=["grpcio", "native"])
def transport(request):
    return request.param


async def refused(call) -> tuple[grpc.StatusCode, str, str, str]:
    """Status, reason, and the request id in the details and in the trailers."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    details = rpc_status.from_call(caught.value).details
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.RequestInfo()
    assert any(detail.Unpack(info) for detail in details)
    assert any(detail.Unpack(request) for detail in details)
    trailers = dict(caught.value.trailing_metadata())
    return caught.value.code(), info.reason, request.request_id, trailers["x-request-id"]


async def test_a_draining_gateway(start, transport):
    async with start(1, transport=transport) as gateway:
        gateway.server.servicer.drain()
        mine = (*gateway.metadata, ("x-request-id", "mine"))
        expected = (grpc.StatusCode.UNAVAILABLE, "DRAINING", "mine", "mine")
        assert await refused(gateway.predict(metadata=mine)) == expected
        assert await refused(gateway.stub.Stream(metadata=mine).read()) == expected
        assert await refused(gateway.stub.Watch(metadata=mine).read()) == expected


@pytest.mark.parametrize(
    ("request_", "settings", "code", "reason"),
    [
        (pb.PredictRequest(), {}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
        (LARGE, {}, grpc.StatusCode.INVALID_ARGUMENT, "ANSWER_TOO_LARGE"),
        (None, {"units_per_day": 1}, grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED"),
    ],
    ids=["invalid", "a large answer", "a quota"],
)
async def test_a_request(start, transport, request_, settings, code, reason):
    async with start(1, transport=transport, **settings) as gateway:
        mine = (*gateway.metadata, ("x-request-id", "mine"))
        call = gateway.predict(metadata=mine) if request_ is None else gateway.predict(request_, metadata=mine)
        assert await refused(call) == (code, reason, "mine", "mine")


async def test_a_caller_without_a_key(start, transport):
    async with start(1, transport=transport) as gateway:
        found = await refused(gateway.predict(metadata=(("x-request-id", "mine"),)))
        assert found == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", "mine", "mine")
