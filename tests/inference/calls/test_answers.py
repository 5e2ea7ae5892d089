"""Answers on the wire are the public messages, however they were written."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.calls import answers
from market_inference.contract.errors import InternalError
from market_inference.contract.generated import answers_pb2, inference_pb2
from models import indicators
from models.forecast import Forecast
from models.forecast.series import Phases
from models.warning import AnswerWarning, WarningCode

SPECS = [
    indicators.Spec("RSI"),
    indicators.Spec("MACD", {"fastperiod": 5}),
    indicators.Spec("BBANDS", last=3),
    indicators.Spec("CDLDOJI", last=1),
]


class Named:
    name, version = "m", "1"


def twin(symbol: str, program: indicators.Program, rows) -> bytes:
    """The same panel, field by field."""
    panel = answers_pb2.PanelIndicatorsAnswer(symbol=symbol)
    panel.indicators.SetInParent()
    for call, part in zip(program.calls, program.rows, strict=True):
        indicator = panel.indicators.indicators.add(name=call.function.name)
        for name, row in zip(program.outputs[part], rows[part], strict=True):
            indicator.outputs.add(name=name, values=row.tobytes())
    return panel.SerializeToString()


@given(
    st.text(max_size=64).filter(lambda text: "\x00" not in text),
    st.lists(st.sampled_from(SPECS), min_size=1, max_size=6),
    st.sampled_from([1, 2, 15, 16, 40, 300, 3000]),
)
def test_a_joined_panel_is_the_message_written_field_by_field(symbol, specs, bars):
    program = indicators.compile(specs)
    close = 100 + np.sin(np.arange(float(bars)))
    panel = indicators.Panel(close - 0.1, close + 1, close - 1, close, close)
    (rows,) = indicators.load().run([indicators.Task(panel, program)])
    raw = answers.indicators([symbol], [rows], program, Named, "r")
    expected = inference_pb2.ComputeIndicatorsResponse(
        panels=[inference_pb2.PanelIndicators.FromString(twin(symbol, program, rows))],
        model="m", model_version="1", request_id="r",
    )  # fmt: skip
    assert raw == expected.SerializeToString()


def test_a_failed_item_carries_its_status_among_the_others():
    program = indicators.compile([indicators.Spec("SMA", {"timeperiod": 2})])
    rows = np.array([[np.nan, 1.5]])
    raw = answers.indicators(["A", "B", "C"], [rows, InternalError(), rows], program, Named, "r")
    answer = inference_pb2.ComputeIndicatorsResponse.FromString(raw)
    assert [panel.WhichOneof("result") for panel in answer.panels] == ["indicators", "error", "indicators"]
    assert [panel.symbol for panel in answer.panels] == ["A", "B", "C"]
    np.testing.assert_array_equal(answer.panels[2].indicators.indicators[0].outputs[0].values, rows[0])


GIVEN = [
    Forecast(np.arange(2.0), np.arange(6.0).reshape(2, 3), 0.0, False, 0, float("nan"), 0),
    Forecast(np.arange(2.0), np.arange(6.0).reshape(2, 3), 0.25, True, 300, 0.0, 7),
    Forecast(
        np.arange(2.0),
        np.ones((2, 3)),
        0.25,
        True,
        40,
        0.75,
        8,
        (AnswerWarning(WarningCode.STALE_TAIL, "stale", (("bars", (3.0,)),)),),
    ),
    Forecast(
        np.arange(2.0), np.ones((2, 3)), 1.0, True, 40, 0.75, 8, (), Phases(np.array([0.5, np.nan]), np.arange(2))
    ),
    InternalError(),
]


@given(st.lists(st.tuples(st.text(max_size=64).filter(lambda text: "\x00" not in text), st.sampled_from(GIVEN))))
def test_joined_forecasts_are_the_message_written_field_by_field(found):
    expected = answers_pb2.PredictAnswer(
        quantile_levels=np.array([0.1, 0.5, 0.9]).tobytes(), model="m", model_version="1", request_id="r"
    )
    for symbol, one in found:
        item = expected.forecasts.add(symbol=symbol)
        if isinstance(one, InternalError):
            item.error.CopyFrom(one.status("r"))
        else:
            answers.write_forecast(item.forecast, one)
    symbols, outcomes = [symbol for symbol, _ in found], [one for _, one in found]
    assert answers.forecasts(symbols, outcomes, (0.1, 0.5, 0.9), Named, "r") == expected.SerializeToString()


def test_a_forecast_keeps_every_number():
    levels = (0.1, 0.5, 0.9)
    quantiles = np.arange(6.0).reshape(2, 3)
    given_ = Forecast(quantiles[:, 1].copy(), quantiles, 0.25, True, 40, 0.75, 8)
    raw = answers.forecasts(["A"], [given_], levels, Named, "r")
    answer = inference_pb2.PredictResponse.FromString(raw)
    forecast = answer.forecasts[0].forecast
    assert list(forecast.quantiles) == list(range(6))
    assert list(forecast.point) == [1, 4]
    assert (forecast.gate, forecast.logs, forecast.context) == (0.25, True, 40)
    assert (forecast.coverage.nominal, forecast.coverage.measured, forecast.coverage.origins) == (0.8, 0.75, 8)
    assert list(answer.quantile_levels) == list(levels)
    assert not forecast.warnings


def test_a_forecast_keeps_its_warnings_in_order():
    split = AnswerWarning(WarningCode.SUSPECTED_SPLIT, "A split.", (("ratio", (4.0,)), ("bars_ago", (20.0,))))
    outliers = AnswerWarning(WarningCode.OUTLIERS_TREATED, "Two outliers.", (("positions", (3.0, 9.0)),))
    given_ = Forecast(np.ones(1), np.ones((1, 1)), 0.0, True, 30, 0.5, 2, (split, outliers))
    raw = answers.forecasts(["A"], [given_], (0.5,), Named, "r")
    (item,) = inference_pb2.PredictResponse.FromString(raw).forecasts
    assert [(one.code, one.message) for one in item.forecast.warnings] == [
        (inference_pb2.WARNING_CODE_SUSPECTED_SPLIT, "A split."),
        (inference_pb2.WARNING_CODE_OUTLIERS_TREATED, "Two outliers."),
    ]
    evidence = [{one.name: list(one.values) for one in found.evidence} for found in item.forecast.warnings]
    assert evidence == [{"ratio": [4], "bars_ago": [20]}, {"positions": [3, 9]}]
    watched = answers_pb2.ForecastAnswer()
    answers.write_forecast(watched, given_)
    assert inference_pb2.Forecast.FromString(watched.SerializeToString()) == item.forecast


def test_every_code_of_a_warning_is_in_the_contract():
    names = {name.removeprefix("WARNING_CODE_") for name in dict(inference_pb2.WarningCode.items())}
    assert names == {"UNSPECIFIED", *WarningCode}


@given(
    st.text(max_size=64).filter(lambda text: "\x00" not in text),
    st.integers(1, 40),
    st.integers(1, 99),
    st.sampled_from([0.0, 0.25, 1.0]),
    st.booleans(),
    st.integers(30, 10_000),
    st.sampled_from([(float("nan"), 0), (0.0, 3), (0.8, 200)]),
)
def test_a_joined_forecast_is_the_message_written_field_by_field(symbol, steps, levels, gate, logs, context, covered):
    quantiles = np.arange(float(steps * levels)).reshape(steps, levels)
    given_ = Forecast(quantiles[:, 0].copy(), quantiles, gate, logs, context, *covered)
    twin = answers_pb2.SeriesForecastAnswer(
        symbol=symbol,
        forecast=answers_pb2.ForecastAnswer(
            point=given_.point.tobytes(), quantiles=quantiles.tobytes(), gate=gate, logs=logs, context=context,
            coverage=inference_pb2.Coverage(nominal=0.8, measured=covered[0], origins=covered[1]),
        ),
    )  # fmt: skip
    raw = answers.forecasts([symbol], [given_], (), Named, "r")
    whole = answers_pb2.PredictAnswer(forecasts=[twin], model="m", model_version="1", request_id="r")
    assert raw == whole.SerializeToString()


def test_a_failed_series_carries_its_status_among_the_others():
    found = Forecast(np.ones(1), np.ones((1, 1)), 0.0, True, 30, 0.5, 2)
    raw = answers.forecasts(["A", "B"], [InternalError(), found], (0.5,), Named, "r")
    failed, well = inference_pb2.PredictResponse.FromString(raw).forecasts
    assert (failed.symbol, failed.error) == ("A", InternalError().status("r"))
    assert (well.symbol, well.forecast.context) == ("B", 30)


def test_sentiment_tells_label_score_and_probabilities():
    raw = answers.sentiments([answers.Sentiment(np.array([0.7, 0.2, 0.1], dtype=np.float32), 3)], Named, "r")
    sentiment = inference_pb2.AnalyzeSentimentResponse.FromString(raw).sentiments[0].sentiment
    assert sentiment.label == inference_pb2.SENTIMENT_LABEL_NEGATIVE
    assert sentiment.score == pytest.approx(-0.6, abs=1e-6)
    assert sentiment.chunks == 3
