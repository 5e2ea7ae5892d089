"""The lengths of lists, counted in the bytes, agree with the parser's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_inference.contract.errors import InvalidRequestError
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.validation import bounds

EMPTY_ELEMENT = b"\x0a\x00"


def refused(raw: bytes, kind: type) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        bounds.check(raw, kind.DESCRIPTOR)
    return caught.value.message


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.PredictRequest(series=[pb.Series()] * 257), "series: too long (max 256, got 257)"),
        (pb.PredictRequest(quantiles=[0.5] * 100), "quantiles: too long (max 99, got 100)"),
        (pb.AnalyzeSentimentRequest(texts=["x"] * 101), "texts: too long (max 100, got 101)"),
        (
            pb.ComputeIndicatorsRequest(indicators=[pb.IndicatorSpec(params={str(i): 1.0 for i in range(17)})]),
            "indicators[0].params: too long (max 16, got 17)",
        ),
        (
            pb.AnalyzeRequest(sentiment=pb.AnalyzeSentimentRequest(texts=["x"] * 101)),
            "sentiment.texts: too long (max 100, got 101)",
        ),
        (
            pb.StreamRequest(requests=[pb.StreamItem(sentiment=pb.AnalyzeSentimentRequest(texts=["x"] * 101))]),
            "requests[0].sentiment.texts: too long (max 100, got 101)",
        ),
    ],
)
def test_a_list_beyond_its_limit_is_refused_with_its_path(message, field):
    assert refused(message.SerializeToString(), type(message)) == field


def test_counting_millions_of_empty_elements_ends_early():
    assert "series: too long (max 256, got more than 1024)" in refused(EMPTY_ELEMENT * 4_000_000, pb.PredictRequest)


def test_millions_of_unknown_fields_are_refused():
    assert "too many fields" in refused(b"\x78\x00" * 1_000_000, pb.PredictRequest)


def test_a_part_that_is_repeated_is_counted_together():
    part = pb.AnalyzeRequest(predict=pb.PredictRequest(series=[pb.Series()] * 200)).SerializeToString()
    bounds.check(part, pb.AnalyzeRequest.DESCRIPTOR)
    assert "predict.series" in refused(part * 2, pb.AnalyzeRequest)


@pytest.mark.parametrize(
    "message",
    [
        pb.PredictRequest(series=[pb.Series(values=[1.0] * 10_001)] * 2, quantiles=[0.5] * 99),
        pb.ComputeIndicatorsRequest(
            panels=[pb.Panel(close=[1.0] * 10_001)] * 64, indicators=[pb.IndicatorSpec()] * 100
        ),
        pb.AnalyzeSentimentRequest(texts=[""] * 100),
    ],
)
def test_lists_within_the_limits_and_the_columns_of_items_pass(message):
    bounds.check(message.SerializeToString(), message.DESCRIPTOR)


@given(st.binary(max_size=300), st.sampled_from([pb.PredictRequest, pb.AnalyzeRequest, pb.StreamRequest]))
def test_any_bytes_pass_or_are_refused(raw, kind):
    try:
        bounds.check(raw, kind.DESCRIPTOR)
    except InvalidRequestError as error:
        assert "too long" in error.message
