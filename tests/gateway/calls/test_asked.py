"""Model, items and units of a request, as its log line has them."""

import pytest

from gateway.calls import asked
from gateway.calls.asked import Asked
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.methods import METHODS

SERIES = pb.Series(values=[1.0] * 30)
PANEL = pb.Panel(close=[1.0] * 40)
PREDICT = pb.PredictRequest(series=[SERIES, SERIES], horizon=5, model="auto")
SENTIMENT = pb.AnalyzeSentimentRequest(texts=["Profit rose"] * 3)
INDICATORS = pb.ComputeIndicatorsRequest(panels=[PANEL], indicators=[pb.IndicatorSpec(name="RSI")])


@pytest.mark.parametrize(
    ("method", "request_", "expected"),
    [
        ("Predict", PREDICT, Asked("auto", 2, 70)),
        ("AnalyzeSentiment", SENTIMENT, Asked("", 3, 9)),
        ("ComputeIndicators", INDICATORS, Asked("", 1, 40)),
        ("Analyze", pb.AnalyzeRequest(predict=PREDICT, sentiment=SENTIMENT), Asked("auto", 5, 79)),
        ("ListModels", pb.ListModelsRequest(), Asked("", 0, 1)),
        ("GetStatus", pb.GetStatusRequest(), Asked("", 0, 100)),
    ],
)
def test_a_request_is_described_by_name_and_numbers(method, request_, expected):
    found = METHODS[method]
    assert asked.of(found, found.twin.FromString(request_.SerializeToString())) == expected


def test_a_long_name_of_a_model_is_cut():
    found = METHODS["Predict"]
    message = found.twin.FromString(pb.PredictRequest(model="x" * 1000).SerializeToString())
    assert len(asked.of(found, message).model) == 64
