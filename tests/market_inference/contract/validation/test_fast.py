"""The fast check of the contract's types."""

import math

import pytest

from market_inference.contract import methods
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.validation import fast

GOOD = [100.0 + i for i in range(30)]


def test_the_types_without_a_fast_check_are_known():
    """An uncovered rule makes every request of a type slow: a new entry is a decision."""
    assert fast.uncovered() == {"market.inference.v1.AnalyzeRequest": "market.inference.v1.AnalyzeRequest: message.cel"}


def test_a_type_with_an_uncovered_rule_never_conforms():
    analyze = pb.AnalyzeRequest(sentiment=pb.AnalyzeSentimentRequest(texts=["good"]))
    assert not fast.conforms(pb.AnalyzeRequest, analyze.SerializeToString())


@pytest.mark.parametrize("name", [name for name, method in methods.METHODS.items() if not method.streams])
def test_an_unknown_field_is_left_to_the_explaining_check(name):
    assert not fast.conforms(methods.METHODS[name].request, b"\x7a\x01x")


@pytest.mark.parametrize("place", [0, 31, 32, 255])
def test_a_bad_number_is_found_at_every_place_of_a_large_request(place):
    series = [pb.Series(symbol=f"S{i}", values=GOOD) for i in range(256)]
    assert fast.conforms(pb.PredictRequest, pb.PredictRequest(series=series, horizon=5).SerializeToString())
    series[place].values.append(math.nan)
    assert not fast.conforms(pb.PredictRequest, pb.PredictRequest(series=series, horizon=5).SerializeToString())
