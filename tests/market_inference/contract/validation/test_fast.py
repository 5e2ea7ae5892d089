"""The fast check of the contract's types."""

import math

import pytest

from market_inference.contract import methods
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.validation import fast
from tests.market_inference.contract.validation import scratch

GOOD = [100.0 + i for i in range(30)]


def test_the_types_without_a_fast_check_are_known():
    """An uncovered rule makes every request of a type slow: a new entry is a decision."""
    assert fast.uncovered() == {}


def test_a_rule_of_a_whole_message_in_cel_is_named_and_its_type_never_conforms():
    kind = scratch.with_message_rule("has(this.value)")
    assert fast.uncovered_rule(kind).endswith(".M: message.cel")
    assert not fast.conforms(kind, kind(value="x").SerializeToString())


def test_every_part_of_analyze_is_checked():
    good = pb.PredictRequest(series=[pb.Series(values=GOOD)], horizon=5)
    specs = [pb.IndicatorSpec(name="RSI")]
    panels = pb.ComputeIndicatorsRequest(panels=[pb.Panel(close=GOOD)], indicators=specs)
    texts = pb.AnalyzeSentimentRequest(texts=["good"])
    whole = pb.AnalyzeRequest(predict=good, sentiment=texts, indicators=panels)
    assert fast.conforms(pb.AnalyzeRequest, whole.SerializeToString())
    for part in ("predict", "sentiment", "indicators"):
        broken = pb.AnalyzeRequest(**{part: {}})
        broken.MergeFrom(whole)
        getattr(broken, part).Clear()
        assert not fast.conforms(pb.AnalyzeRequest, broken.SerializeToString())
    assert not fast.conforms(pb.AnalyzeRequest, b"")


@pytest.mark.parametrize("name", [name for name, method in methods.METHODS.items() if not method.streams])
def test_an_unknown_field_is_left_to_the_explaining_check(name):
    assert not fast.conforms(methods.METHODS[name].request, b"\x7a\x01x")


@pytest.mark.parametrize("place", [0, 31, 32, 255])
def test_a_bad_number_is_found_at_every_place_of_a_large_request(place):
    series = [pb.Series(symbol=f"S{i}", values=GOOD) for i in range(256)]
    assert fast.conforms(pb.PredictRequest, pb.PredictRequest(series=series, horizon=5).SerializeToString())
    series[place].values.append(math.nan)
    assert not fast.conforms(pb.PredictRequest, pb.PredictRequest(series=series, horizon=5).SerializeToString())
