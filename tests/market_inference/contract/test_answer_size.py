"""The size of an answer, known from its request: never less than the answer, and little more."""

import pytest
import talib
from talib import abstract

from market_inference.contract import answer_size
from market_inference.contract.encoding import twins
from market_inference.contract.errors import AnswerTooLargeError, InvalidRequestError, reason_of
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.methods import METHODS
from market_inference.contract.validation.check import check, read

BARS = [1.0] * 10_000
LEVELS = [level / 100 for level in range(1, 100)]


def test_the_number_of_outputs_is_talibs():
    several = {name: len(abstract.Function(name).output_names) for name in talib.get_functions()}
    assert {name: count for name, count in several.items() if count > 1} == answer_size.OUTPUTS


def expected_bytes(method: str, raw: bytes) -> int:
    return METHODS[method].answer_bytes(read(METHODS[method], raw))


def forecast(horizon: int, levels: int) -> pb.SeriesForecast:
    found = pb.Forecast(point=[1.5] * horizon, quantiles=[1.5] * (horizon * levels), gate=1, logs=True, context=100)
    found.coverage.nominal = found.coverage.measured = 0.5
    return pb.SeriesForecast(symbol="S" * 64, forecast=found)


@pytest.mark.parametrize(("horizon", "levels"), [(1, []), (30, [0.5]), (365, LEVELS)])
def test_forecasts_have_the_expected_size(horizon, levels):
    request = pb.PredictRequest(series=[pb.Series(values=[1.0] * 30)] * 3, horizon=horizon, quantiles=levels)
    answer = pb.PredictResponse(forecasts=[forecast(horizon, len(levels) or 9)] * 3)
    size = expected_bytes("Predict", request.SerializeToString())
    assert answer.ByteSize() <= size <= answer.ByteSize() + 3 * 200


@pytest.mark.parametrize(("bars", "last"), [(50, 0), (50, 10), (10, 50), (10_000, 0)])
def test_indicators_have_the_expected_size(bars, last):
    specs = [pb.IndicatorSpec(name=name, last=last) for name in ("RSI", "bbands", "MACD")]
    request = pb.ComputeIndicatorsRequest(panels=[pb.Panel(close=[1.0] * bars)] * 2, indicators=specs)
    values = [1.5] * min(bars, last or bars)
    found = pb.IndicatorSet(
        indicators=[
            pb.Indicator(name="X" * 12, outputs=[pb.IndicatorOutput(name="middleband", values=values)] * count)
            for count in (1, 3, 3)
        ]
    )
    answer = pb.ComputeIndicatorsResponse(panels=[pb.PanelIndicators(symbol="S" * 64, indicators=found)] * 2)
    size = expected_bytes("ComputeIndicators", request.SerializeToString())
    assert answer.ByteSize() <= size <= answer.ByteSize() + 2 * (160 + 7 * 48)


def test_sentiments_with_all_their_warnings_have_the_expected_size():
    request = pb.AnalyzeSentimentRequest(texts=["a"] * 3)
    warning = pb.AnswerWarning(code=8, message="m" * 220, evidence=[pb.Evidence(name="n" * 13, values=[1.0])] * 2)
    found = pb.Sentiment(label=1, score=1, negative=1, neutral=1, positive=1, chunks=1, warnings=[warning] * 3)
    answer = pb.AnalyzeSentimentResponse(sentiments=[pb.TextSentiment(sentiment=found)] * 3)
    size = expected_bytes("AnalyzeSentiment", request.SerializeToString())
    assert answer.ByteSize() <= size <= 2 * answer.ByteSize()


def large(panels: int = 64) -> pb.ComputeIndicatorsRequest:
    specs = [pb.IndicatorSpec(name="BBANDS", params={"timeperiod": 2 + at}) for at in range(100)]
    return pb.ComputeIndicatorsRequest(panels=[pb.Panel(close=BARS)] * panels, indicators=specs)


def test_a_part_of_analyze_counts_as_the_call_of_its_own():
    raw = pb.AnalyzeRequest(indicators=large(1)).SerializeToString()
    alone = expected_bytes("ComputeIndicators", large(1).SerializeToString())
    assert expected_bytes("Analyze", raw) == alone


def test_the_error_names_the_limit_and_the_way_out():
    expected = METHODS["ComputeIndicators"].answer_bytes(
        twins.read(pb.ComputeIndicatorsRequest, large().SerializeToString())
    )
    error = AnswerTooLargeError(METHODS["ComputeIndicators"].max_answer_bytes, expected)
    assert "max 33554432 bytes" in error.message
    assert "`last`" in error.message
    assert reason_of(error.status("id")) == "ANSWER_TOO_LARGE"
    assert isinstance(error, InvalidRequestError)


def test_a_request_that_its_twin_cannot_read_is_limited_by_the_check():
    panel = b"".join(b"\x29" + b"\0" * 8 for _ in range(10_000))  # close, number by number, unpacked
    request = pb.ComputeIndicatorsRequest(indicators=large().indicators, panels=[pb.Panel.FromString(panel)] * 20)
    items = b"".join(b"\x0a" + _varint(len(panel)) + panel for _ in range(20))
    raw = items + pb.ComputeIndicatorsRequest(indicators=request.indicators).SerializeToString()
    assert expected_bytes("ComputeIndicators", raw) < 1 << 20
    with pytest.raises(AnswerTooLargeError):
        check(METHODS["ComputeIndicators"], raw)


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])
