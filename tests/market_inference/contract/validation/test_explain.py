"""A violation of every rule names the field's path, the mistake and the limit."""

import math

import pytest

from market_inference.contract.errors import InvalidRequestError
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.validation import explain

GOOD = [100.0 + i for i in range(30)]


def predict(*series: list[float], horizon: int = 5, quantiles: list[float] | None = None) -> pb.PredictRequest:
    return pb.PredictRequest(
        series=[pb.Series(symbol=f"S{i}", values=values) for i, values in enumerate(series)],
        horizon=horizon,
        quantiles=quantiles or [],
    )


def bars(**columns: list[float]) -> pb.Panel:
    whole = {"open": [2.0, 2.0], "high": [3.0, 3.0], "low": [1.0, 1.0], "close": [2.0, 2.0], "volume": [0.0, 9.0]}
    return pb.Panel(**{**whole, **columns})


def panels(*items: pb.Panel, specs: int = 1) -> pb.ComputeIndicatorsRequest:
    return pb.ComputeIndicatorsRequest(panels=items, indicators=[pb.IndicatorSpec(name="SMA")] * specs)


BAD = {
    "29 values": (predict(GOOD[:29]), "series[0].values", "too short (min 30, got 29)"),
    "10,001 values": (predict([1.0] * 10_001), "series[0].values", "too long (max 10000, got 10001)"),
    "NaN": (predict([*GOOD, math.nan]), "series[0].values[30]", "must be a finite number (got nan)"),
    "infinity": (predict([math.inf, *GOOD]), "series[0].values[0]", "must be a finite number (got inf)"),
    "no series": (predict(), "series", "must not be empty (min 1, got 0)"),
    "257 series": (predict(*[GOOD] * 257), "series", "too long (max 256, got 257)"),
    "horizon 0": (
        predict(GOOD, horizon=0),
        "horizon",
        "greater than or equal to 1 and less than or equal to 365 (got 0)",
    ),
    "horizon 366": (predict(GOOD, horizon=366), "horizon", "less than or equal to 365 (got 366)"),
    "quantile 1": (predict(GOOD, quantiles=[1.0]), "quantiles[0]", "greater than 0 and less than 1 (got 1.0)"),
    "equal quantiles": (predict(GOOD, quantiles=[0.5, 0.5]), "quantiles", "must not repeat a value"),
    "0 texts": (pb.AnalyzeSentimentRequest(), "texts", "must not be empty (min 1, got 0)"),
    "101 texts": (pb.AnalyzeSentimentRequest(texts=["a"] * 101), "texts", "too long (max 100, got 101)"),
    "10,001 characters": (
        pb.AnalyzeSentimentRequest(texts=["é" * 10_001]),
        "texts[0]",
        "too long (max 10000 characters, got 10001)",
    ),
    "invisible text": (
        pb.AnalyzeSentimentRequest(texts=["\u200b\ufeff\u2060"]),
        "texts[0]",
        "must not be empty or blank",
    ),
    "blank text": (pb.AnalyzeSentimentRequest(texts=[" \n"]), "texts[0]", "must not be empty or blank"),
    "unequal lengths": (panels(bars(high=[3.0])), "panels[0].high", "as many values as close (2, got 1)"),
    "low above high": (
        panels(bars(open=[], close=[2.0, 2.0], low=[1.0, 3.5], high=[3.0, 3.0])),
        "panels[0].low[1]",
        "low must not exceed close (got 3.5 > 2)",
    ),
    "open above high": (panels(bars(open=[2.0, 4.0])), "panels[0].open[1]", "open must not exceed high (got 4 > 3)"),
    "negative volume": (panels(bars(volume=[1.0, -1.0])), "panels[0].volume[1]", "must not be negative (got -1)"),
    "NaN in a panel": (panels(bars(close=[2.0, math.nan])), "panels[0].close[1]", "must be a finite number (got nan)"),
    "no close": (panels(pb.Panel(open=[1.0])), "panels[0].close", "must not be empty (min 1, got 0)"),
    "no indicators": (panels(bars(), specs=0), "indicators", "must not be empty (min 1, got 0)"),
    "101 indicators": (panels(bars(), specs=101), "indicators", "too long (max 100, got 101)"),
    "empty analyze": (pb.AnalyzeRequest(), "", "at least one of predict, sentiment and indicators is needed"),
    "bad part of analyze": (
        pb.AnalyzeRequest(predict=predict(GOOD[:2])),
        "predict.series[0].values",
        "too short (min 30, got 2)",
    ),
}


@pytest.mark.parametrize(("message", "field", "description"), BAD.values(), ids=BAD)
def test_a_broken_rule_names_the_field_and_the_limit(message, field, description):
    with pytest.raises(InvalidRequestError) as caught:
        explain.check(message)
    assert caught.value.violations[0].field == field
    assert description in caught.value.violations[0].description


@pytest.mark.parametrize(
    "message",
    [
        predict(GOOD, horizon=365, quantiles=[0.001, 0.999]),
        predict([0.0] * 10_000, horizon=1),
        pb.AnalyzeSentimentRequest(texts=["x" * 10_000] * 100),
        panels(bars()),
        panels(pb.Panel(close=[1.0])),
    ],
)
def test_a_request_at_its_limits_passes(message):
    assert explain.check(message) == []


@pytest.mark.parametrize(
    ("message", "list_name"),
    [
        (predict(GOOD, GOOD[:29], [math.nan] * 30), "series"),
        (pb.AnalyzeSentimentRequest(texts=["good", "", "x" * 10_001]), "texts"),
        (panels(bars(), bars(high=[1.0]), bars(volume=[-1.0, 0.0])), "panels"),
        (pb.AnalyzeRequest(sentiment=pb.AnalyzeSentimentRequest(texts=["good", "", " "])), "texts"),
    ],
)
def test_a_bad_item_among_several_is_refused_alone_and_cleared(message, list_name):
    refusals = explain.check(message)
    assert [(refusal.list_name, refusal.index) for refusal in refusals] == [(list_name, 1), (list_name, 2)]
    items = getattr(message.sentiment if isinstance(message, pb.AnalyzeRequest) else message, list_name)
    assert items[0]
    assert all(item == ("" if isinstance(item, str) else type(item)(symbol=item.symbol)) for item in items[1:])


def test_a_refused_item_keeps_its_symbol_unless_the_symbol_is_the_mistake():
    symbols = ["A", "B", "x" * 1_000]
    message = pb.PredictRequest(series=[pb.Series(symbol=one, values=GOOD) for one in symbols], horizon=1)
    del message.series[1].values[29:]
    assert [refusal.index for refusal in explain.check(message)] == [1, 2]
    assert [(one.symbol, len(one.values)) for one in message.series] == [("A", len(GOOD)), ("B", 0), ("", 0)]
    named = panels(bars(symbol="A"), bars(symbol="B", high=[1.0]))
    explain.check(named)
    assert [one.symbol for one in named.panels] == ["A", "B"]


def test_a_violation_outside_of_the_items_refuses_the_request():
    with pytest.raises(InvalidRequestError) as caught:
        explain.check(predict(GOOD, GOOD[:29], horizon=0))
    assert {violation.field for violation in caught.value.violations} == {"horizon", "series[1].values"}


def test_unpacked_numbers_are_checked_like_packed_numbers():
    packed = pb.Series(values=[1.0, math.nan]).SerializeToString()
    unpacked = b"".join(b"\x11" + packed[2 + 8 * i : 10 + 8 * i] for i in range(2))
    series = b"".join(b"\x11" + b"\0" * 8 for _ in range(29)) + unpacked
    raw = b"\x0a" + bytes([len(series) & 0x7F | 0x80, len(series) >> 7]) + series + b"\x10\x05"
    message = pb.PredictRequest.FromString(raw)
    assert len(message.series[0].values) == 31
    with pytest.raises(InvalidRequestError, match=r"series\[0\]\.values\[30\]: must be a finite number"):
        explain.check(message)


def test_a_part_of_analyze_without_valid_items_leaves_the_other_parts():
    request = pb.AnalyzeRequest(predict=predict(GOOD[:2]), sentiment=pb.AnalyzeSentimentRequest(texts=["good"]))
    (refusal,) = explain.check(request)
    assert (refusal.list_name, refusal.index) == ("series", 0)
