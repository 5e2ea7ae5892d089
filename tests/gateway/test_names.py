"""Names of any length in a request come back as INVALID_ARGUMENT with details, cut (ATTACKS.md, B15)."""

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from market_inference.contract.generated import inference_pb2 as pb

CLOSES = pb.Panel(close=[1.0, 2.0, 3.0])


def spec(**fields) -> pb.ComputeIndicatorsRequest:
    return pb.ComputeIndicatorsRequest(panels=[CLOSES], indicators=[pb.IndicatorSpec(**{"name": "SMA", **fields})])


@pytest.mark.parametrize("name", ["k" * 5_000, "\U0001f600" * 5_000, "\n" * 5_000], ids=["ASCII", "emoji", "newlines"])
@pytest.mark.parametrize(
    ("method", "request_of", "field"),
    [
        ("ComputeIndicators", lambda name: spec(params={name: 1.0}), "indicators[0].params["),
        ("ComputeIndicators", lambda name: spec(name=name), "indicators[0].name"),
        ("Predict", lambda name: pb.PredictRequest(horizon=1, series=[pb.Series(symbol=name, values=[1.0] * 30)]),
         "series[0].symbol"),
        ("AnalyzeSentiment", lambda name: pb.AnalyzeSentimentRequest(texts=["x"], model=name), "model"),
    ],
    ids=["parameter", "indicator", "symbol", "model"],
)  # fmt: skip
async def test_a_name_that_is_too_long_is_refused_with_details(start, method, request_of, field, name):
    async with start(1) as gateway:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await getattr(gateway.stub, method)(request_of(name), metadata=gateway.metadata)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = rpc_status.from_call(_Call(caught.value))
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status.details)
    assert bad.field_violations[0].field.startswith(field)
    assert len(caught.value.details()) < 1024


class _Call:
    """An error of grpc.aio as rpc_status reads a call."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code, self.details, self.trailing_metadata = error.code, error.details, error.trailing_metadata
