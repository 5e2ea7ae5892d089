"""Units of requests, the measure of rates and quotas."""

import pytest

from market_inference.contract import units
from market_inference.contract.encoding import twins
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.methods import METHODS

PREDICT = pb.PredictRequest(series=[pb.Series(values=[1.0] * 100)] * 2, horizon=10)
TEXTS = pb.AnalyzeSentimentRequest(texts=["x" * 40, "y"])
PANELS = pb.ComputeIndicatorsRequest(
    panels=[pb.Panel(close=[1.0] * 50)] * 2, indicators=[pb.IndicatorSpec(name="RSI")] * 3
)
OPENED = pb.WatchOpen(history=pb.Panel(close=[1.0] * 50), indicators=[pb.IndicatorSpec(name="RSI")] * 3)


@pytest.mark.parametrize(
    ("method", "message", "expected"),
    [
        ("Predict", PREDICT, 220),
        ("AnalyzeSentiment", TEXTS, 12),
        ("ComputeIndicators", PANELS, 300),
        ("Analyze", pb.AnalyzeRequest(predict=PREDICT, sentiment=TEXTS, indicators=PANELS), 532),
        ("Watch", pb.WatchRequest(open=OPENED), 150),
        ("GetStatus", pb.GetStatusRequest(), units.STATUS_UNITS),
        ("ListModels", pb.ListModelsRequest(), 1),
    ],
)
def test_a_request_costs_the_units_of_its_row(method, message, expected):
    assert METHODS[method].units(twins.read(type(message), message.SerializeToString())) == expected


def test_every_bar_of_a_session_costs_its_indicators_and_its_share_of_a_forecast():
    assert units.of_bar(OPENED) == 3
    assert units.of_bar(pb.WatchOpen(forecast=pb.WatchForecast(horizon=10, every=5))) == 3


def test_bytes_that_cannot_be_read_cost_as_much_as_points():
    assert [units.of_bytes(size) for size in (0, 7, 80)] == [1, 1, 10]
