"""The lengths of lists, counted in the bytes, agree with the parser's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_inference.contract.encoding import wireformat
from market_inference.contract.errors import InvalidRequestError
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.methods import METHODS
from market_inference.contract.validation import bounds, check

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


FULL = {
    pb.PredictRequest: 256 + 1 + 99 + 1 + 1 + 16 + 256,
    pb.AnalyzeSentimentRequest: 100 + 1 + 100,
    pb.ComputeIndicatorsRequest: 64 + 100 * (1 + 1 + 16 + 1),
    pb.ListModelsRequest: 0,
}
FULL[pb.AnalyzeRequest] = 3 + sum(FULL.values())
# Each time of a history alone; of a bar the walk sees its message.
FULL[pb.WatchRequest] = 1 + (1 + 1 + 10_000 + 100 * 19 + (1 + 1 + 99 + 4) + 4) + 1


@pytest.mark.parametrize("kind", FULL)
@pytest.mark.parametrize("field", [b"\x7a\x00", b"\x78\x00", b"\x7d\0\0\0\0", b"\x7b\x7c"], ids=str)
def test_the_walk_ends_behind_the_fields_of_a_full_request_and_512_others(kind, field):
    most = FULL[kind] + 512
    count = most // (2 if field == b"\x7b\x7c" else 1)  # a group begins and ends
    bounds.check(field * count, kind.DESCRIPTOR)
    assert refused(field * (count + 1), kind) == f"too many fields (max {most})"


def test_a_full_request_may_come_from_a_newer_contract():
    specs = [pb.IndicatorSpec(name="SMA", params={str(i): 1.0 for i in range(16)}, last=1)] * 100
    request = pb.AnalyzeRequest(
        predict=pb.PredictRequest(series=[pb.Series()] * 256, horizon=1, quantiles=[0.5] * 99, groups=["a"] * 256),
        sentiment=pb.AnalyzeSentimentRequest(texts=["x"] * 100, about=["x"] * 100),
        indicators=pb.ComputeIndicatorsRequest(panels=[pb.Panel()] * 64, indicators=specs),
    )
    bounds.check(request.SerializeToString() + b"\x7a\x00" * 512, pb.AnalyzeRequest.DESCRIPTOR)


def test_the_fields_of_all_levels_count_together():
    spec = pb.IndicatorSpec().SerializeToString() + b"\x7a\x00" * 1000
    request = b"".join(wireformat.pieces(2, spec))
    bounds.check(request * 2, pb.ComputeIndicatorsRequest.DESCRIPTOR)
    assert "too many fields (max 2476)" in refused(request * 3, pb.ComputeIndicatorsRequest)


def test_a_stream_message_is_bounded_on_each_level():
    requests = pb.StreamRequest(requests=[pb.StreamItem(id=1, predict=pb.PredictRequest(horizon=1))] * 1024)
    bounds.check(requests.SerializeToString(), pb.StreamRequest.DESCRIPTOR)
    assert refused(b"\x7a\x00" * 20_000, pb.StreamRequest) == "too many fields (max 16384)"
    with pytest.raises(InvalidRequestError, match=r"too many fields \(max 1536\)"):
        bounds.check(b"\x7a\x00" * 1537, pb.StreamRequest.DESCRIPTOR, inside=False)


def test_a_long_tag_counts_as_often_as_it_has_bytes():
    field = b"\xfa\xff\xff\xff\x0f\x00"
    bounds.check(field * (1142 // 5), pb.PredictRequest.DESCRIPTOR)
    assert "too many fields" in refused(field * (1142 // 5 + 1), pb.PredictRequest)


def test_a_list_beyond_its_limit_is_named_rather_than_the_number_of_fields():
    request = pb.PredictRequest(series=[pb.Series()] * 1000, groups=["x"] * 256)
    assert refused(request.SerializeToString(), pb.PredictRequest) == "series: too long (max 256, got at least 1000)"


@pytest.mark.parametrize("time", [1, 1_700_000_000_000_000_000])
def test_packed_times_are_counted(time):
    opening = pb.WatchRequest(open=pb.WatchOpen(times=[time] * 10_000))
    bounds.check(opening.SerializeToString(), pb.WatchRequest.DESCRIPTOR)
    opening.open.times.append(time)
    text = "open.times: too long (max 10000, got 10001)"
    assert refused(opening.SerializeToString(), pb.WatchRequest) == text


@pytest.mark.parametrize(
    ("kind", "field", "path"),
    [
        (pb.PredictRequest, b"\x0a\x00", "series"),
        (pb.PredictRequest, b"\x3a\x00", "groups"),
        (pb.AnalyzeSentimentRequest, b"\x0a\x00", "texts"),
        (pb.ComputeIndicatorsRequest, b"\x0a\x00", "panels"),
        (pb.ComputeIndicatorsRequest, b"\x12\x00", "indicators"),
        (pb.AnalyzeRequest, b"".join(wireformat.pieces(1, b"\x0a\x00" * 3000)), "predict.series"),
    ],
)
def test_the_lists_of_a_small_request_are_counted_before_anything_looks_at_the_elements(kind, field, path):
    raw = field * (6000 // len(field) + 1)
    method = next(one for one in METHODS.values() if one.request is kind)
    with pytest.raises(InvalidRequestError, match=f"{path}: too long"):
        check.read(method, raw)


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
