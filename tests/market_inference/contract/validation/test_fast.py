"""The fast check of the contract's types."""

import math
from itertools import chain, combinations

import pytest

from market_inference.contract import methods
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.validation import explain, fast
from tests.market_inference.contract.validation import scratch

GOOD = [100.0 + i for i in range(30)]


def test_the_types_without_a_fast_check_are_known():
    """An uncovered rule makes every request of a type slow: a new entry is a decision."""
    assert fast.uncovered() == {}


def test_a_rule_of_a_whole_message_in_cel_is_named_and_its_type_never_conforms():
    kind = scratch.with_message_rule("has(this.value)")
    assert fast.uncovered_rule(kind).endswith(".M: message.cel")
    assert not scratch.conforms(kind, kind(value="x").SerializeToString())


def test_every_part_of_analyze_is_checked():
    good = pb.PredictRequest(series=[pb.Series(values=GOOD)], horizon=5)
    specs = [pb.IndicatorSpec(name="RSI")]
    panels = pb.ComputeIndicatorsRequest(panels=[pb.Panel(close=GOOD)], indicators=specs)
    texts = pb.AnalyzeSentimentRequest(texts=["good"])
    whole = pb.AnalyzeRequest(predict=good, sentiment=texts, indicators=panels)
    assert scratch.conforms(pb.AnalyzeRequest, whole.SerializeToString())
    for part in ("predict", "sentiment", "indicators"):
        broken = pb.AnalyzeRequest(**{part: {}})
        broken.MergeFrom(whole)
        getattr(broken, part).Clear()
        assert not scratch.conforms(pb.AnalyzeRequest, broken.SerializeToString())
    assert not scratch.conforms(pb.AnalyzeRequest, b"")


@pytest.mark.parametrize("name", [name for name, method in methods.METHODS.items() if not method.streams])
def test_an_unknown_field_is_left_to_the_explaining_check(name):
    assert not scratch.conforms(methods.METHODS[name].request, b"\x7a\x01x")


@pytest.mark.parametrize("place", [0, 31, 32, 255])
def test_a_bad_number_is_found_at_every_place_of_a_large_request(place):
    series = [pb.Series(symbol=f"S{i}", values=GOOD) for i in range(256)]
    assert scratch.conforms(pb.PredictRequest, pb.PredictRequest(series=series, horizon=5).SerializeToString())
    series[place].values.append(math.nan)
    assert not scratch.conforms(pb.PredictRequest, pb.PredictRequest(series=series, horizon=5).SerializeToString())


@pytest.mark.parametrize("place", [0, 40, 63])
def test_a_mistake_is_found_at_every_place_of_a_request_of_megabytes(place):
    prices = [1.0 + at / 5000 for at in range(5000)]
    panels = [pb.Panel(close=prices, volume=prices) for _ in range(64)]
    assert panels_conform(*panels)
    panels[place].volume[4999] = -1.0
    assert not panels_conform(*panels)
    series = [pb.Series(values=prices) for _ in range(64)]
    assert scratch.conforms(pb.PredictRequest, pb.PredictRequest(series=series, horizon=5).SerializeToString())
    series[place].values[4999] = math.inf
    assert not scratch.conforms(pb.PredictRequest, pb.PredictRequest(series=series, horizon=5).SerializeToString())


BARS = {"open": [2.0, 2.0], "high": [3.0, 3.0], "low": [1.0, 1.0], "volume": [0.0, 9.0]}
SUBSETS = list(chain.from_iterable(combinations(BARS, size) for size in range(len(BARS) + 1)))


def panels_conform(*panels: pb.Panel) -> bool:
    request = pb.ComputeIndicatorsRequest(panels=panels, indicators=[pb.IndicatorSpec(name="RSI")])
    return scratch.conforms(pb.ComputeIndicatorsRequest, request.SerializeToString())


@pytest.mark.parametrize("present", SUBSETS, ids="+".join)
def test_a_panel_with_any_of_the_columns_takes_the_fast_check(present):
    """The client sends the columns that the indicators read: a panel may lack any of them but `close`."""
    good = {"close": [2.0, 2.5], **{name: BARS[name] for name in present}}
    assert panels_conform(pb.Panel(**good), pb.Panel(**good))
    wrong = {"open": [4.0, 2.0], "high": [3.0, 1.0], "low": [3.0, 1.0], "volume": [1.0, -1.0]}
    for name in present:
        # An open above the high breaks a rule only beside a high.
        allowed = name == "open" and "high" not in present
        assert panels_conform(pb.Panel(**{**good, name: wrong[name]})) is allowed
        assert not panels_conform(pb.Panel(**{**good, name: [math.nan, 2.0]}))
        assert not panels_conform(pb.Panel(**{**good, name: good[name][:1]}))
    assert panels_conform(pb.Panel(**{**good, "close": [2.0]})) is not bool(present)
    assert not panels_conform(pb.Panel(**{**good, "close": []}))


@pytest.mark.parametrize("column", ["past_covariates", "future_covariates"])
def test_a_covariate_may_miss_values_and_is_never_infinite(column):
    items = [pb.Series(values=GOOD), pb.Series(values=GOOD, **{column: [math.nan, 1.0]})]
    request = pb.PredictRequest(series=items, horizon=5, covariates=["a"])
    assert scratch.conforms(pb.PredictRequest, request.SerializeToString())
    getattr(request.series[1], column)[1] = -math.inf
    assert not scratch.conforms(pb.PredictRequest, request.SerializeToString())
    (refusal,) = explain.check(request)
    (broken,) = refusal.error.violations
    assert (refusal.index, broken.field) == (1, f"series[1].{column}[1]")
    assert broken.description == "must not be infinite"


def test_times_ascend_within_each_series():
    """Two series with the same times are joined for no check: the second does not follow on the first."""
    series = [pb.Series(values=GOOD, times=range(10**18, 10**18 + 30)) for _ in range(2)]
    request = pb.PredictRequest(series=series, horizon=5)
    assert scratch.conforms(pb.PredictRequest, request.SerializeToString())
    request.series[1].times[7] = request.series[1].times[6]
    assert not scratch.conforms(pb.PredictRequest, request.SerializeToString())
    (refusal,) = explain.check(request)
    (broken,) = refusal.error.violations
    assert (broken.field, broken.description) == ("series[1].times[7]", "must be after the one before")
