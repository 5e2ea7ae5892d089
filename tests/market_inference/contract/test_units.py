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
        (
            "Predict",
            pb.PredictRequest(
                series=[pb.Series(values=[1.0] * 100, past_covariates=[1.0] * 200, future_covariates=[1.0] * 20)],
                horizon=10,
                covariates=["a", "b"],
            ),
            330,
        ),
        ("AnalyzeSentiment", TEXTS, 12),
        ("AnalyzeSentiment", pb.AnalyzeSentimentRequest(texts=["利" * 40]), 31),
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


def asked(bars: int, *specs: tuple[str, dict[str, float]]) -> int:
    request = pb.ComputeIndicatorsRequest(panels=[pb.Panel(close=[1.0] * bars)])
    for name, params in specs:
        request.indicators.add(name=name, params=params, last=1)
    return METHODS["ComputeIndicators"].units(twins.read(type(request), request.SerializeToString()))


def test_an_indicator_that_looks_at_its_whole_window_costs_bars_times_window():
    assert asked(10_000, ("SMA", {"timeperiod": 5000})) == asked(10_000, ("CCI", {})) == 10_000
    assert asked(10_000, ("CCI", {"timeperiod": 5000}), ("SMA", {})) == 20_000 + 5_000 * 5_000 // 8
    assert asked(10_000, ("fractal", {"leftbars": 300, "rightbars": 500})) == 10_000 + 9_200 * 800 // 8
    assert asked(100, ("CCI", {"timeperiod": 5000})) == 100
    assert asked(100, ("HT_SINE", {})) == 7000
    # More specs than a cache keeps.
    many = [("CCI", {"timeperiod": 50.0})] * 300
    assert asked(60, *many) == 300 * (60 + 10 * 50 // 8)


@pytest.mark.parametrize("window", [float("nan"), float("inf"), -5.0, 0.0, 1e300])
def test_a_window_that_the_check_will_refuse_costs_none(window):
    assert asked(100, ("CCI", {"timeperiod": window})) == 100


def test_a_bar_of_a_session_costs_its_windows():
    opened = pb.WatchOpen(history=pb.Panel(close=[1.0] * 50))
    for number in range(40):
        opened.indicators.add(name="STOCHRSI", params={"fastk_period": 4000.0 + number})
    assert units.of_bar(opened) == 40 + sum(range(4000, 4040)) // 8
    opened.indicators.add(name="HT_SINE")
    assert units.watch(pb.WatchRequest(open=opened)) == 50 * 110


def test_bytes_that_cannot_be_read_cost_as_much_as_points():
    assert [units.of_bytes(size) for size in (0, 7, 80)] == [1, 1, 10]
