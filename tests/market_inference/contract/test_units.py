"""Units of requests, the measure of rates and quotas."""

from typing import Any

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


def costs(bars: range, opened: pb.WatchOpened, **request: Any) -> list[int]:
    of_bars = units.BarUnits(pb.WatchOpen(history=pb.Panel(close=[1.0] * 50), **request))
    of_bars.opened(opened)
    return [of_bars.of(sequence) for sequence in bars]


def test_a_bar_of_a_session_without_a_forecast_costs_what_the_answer_to_the_opening_says():
    assert costs(range(1, 4), pb.WatchOpened(units_per_bar=7, bars=50)) == [7, 7, 7]
    assert costs(range(1, 4), pb.WatchOpened()) == [1, 1, 1]


@pytest.mark.parametrize(("every", "due"), [(0, 1), (1, 1), (2, 2), (366, 366)])
def test_a_bar_with_a_forecast_costs_the_bars_held_and_the_horizon_more_and_no_other_bar_does(every, due):
    opened = pb.WatchOpened(units_per_bar=3, bars=60)
    found = costs(range(1, 1001), opened, forecast=pb.WatchForecast(horizon=10, every=every))
    assert found == [3 + (sequence % due == 0) * (min(60, 50 + sequence) + 10) for sequence in range(1, 1001)]


def test_a_session_that_was_opened_again_counts_the_bars_from_its_history_on():
    opened, forecast = pb.WatchOpened(units_per_bar=1, bars=60), pb.WatchForecast(horizon=10)
    assert costs(range(1000, 1002), opened, sequence=1000, forecast=forecast) == [61, 62]
    # Bars that will be refused.
    assert costs(range(2), opened, sequence=1000, forecast=forecast) == [11, 11]
    assert costs(range(2**64 - 1, 2**64), opened, sequence=1000, forecast=forecast) == [71]


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


def test_the_opening_of_a_session_costs_the_history():
    opened = pb.WatchOpen(history=pb.Panel(close=[1.0] * 50))
    for number in range(40):
        opened.indicators.add(name="STOCHRSI", params={"fastk_period": 4000.0 + number})
    opened.indicators.add(name="HT_SINE")
    assert units.watch(pb.WatchRequest(open=opened)) == 50 * 110


def test_bytes_that_cannot_be_read_cost_as_much_as_points():
    assert [units.of_bytes(size) for size in (0, 7, 80)] == [1, 1, 10]
