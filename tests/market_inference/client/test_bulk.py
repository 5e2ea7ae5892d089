"""Answers to many items: lazy items, arrays over all items, and failures that stay visible in both."""

import pickle
from dataclasses import FrozenInstanceError, fields
from typing import Any

import numpy as np
import pytest
from google.rpc import code_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from market_inference.client import bulk, calls, response
from market_inference.client.forecast import Coverage, Forecast
from market_inference.contract.encoding import wireformat
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.errors import InternalError, InvalidRequestError, MarketInferenceError, UnavailableError

LEVELS = [0.1, 0.5, 0.9]
SERIES = np.arange(40.0)
REFUSED = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="series[1]: too short")


def forecast(seed: int, horizon: int = 4, levels: int = 3) -> pb.Forecast:
    """A forecast of random numbers; fields around the columns have different sizes in different forecasts."""
    dice = np.random.default_rng(seed)
    quantiles = np.sort(dice.normal(size=(horizon, levels)))
    return pb.Forecast(
        point=quantiles[:, levels // 2],
        quantiles=quantiles.ravel(),
        coverage=pb.Coverage(nominal=0.8, measured=dice.random(), origins=int(dice.integers(1, 100_000))),
        gate=float(seed % 2),
        logs=bool(seed % 3),
        context=1 + seed % len(SERIES),
    )


def predicted(symbols: list[str], failed: set[int]) -> pb.PredictResponse:
    answer = pb.PredictResponse(quantile_levels=LEVELS, model="walk", model_version="3", request_id="r1")
    for at, symbol in enumerate(symbols):
        if at in failed:
            answer.forecasts.add(error=REFUSED)
        else:
            answer.forecasts.add(symbol=symbol, forecast=forecast(at))
    return answer


def read_predicted(answers: list[Any], symbols: list[str]) -> bulk.ForecastAnswers:
    """What a user gets for responses, or errors, to the requests of one call."""
    given = dict.fromkeys(symbols, SERIES) if any(symbols) else [SERIES] * len(symbols)
    call = calls.predict(given, 4, LEVELS, "")
    assert len(call.requests) == len(answers)
    raw = [one if isinstance(one, Exception) else one.SerializeToString() for one in answers]
    found = call.read(raw)
    assert isinstance(found, bulk.ForecastAnswers)
    return found


def panels(sizes: list[int], failed: set[int] = frozenset()) -> pb.ComputeIndicatorsResponse:  # type: ignore[assignment]
    answer = pb.ComputeIndicatorsResponse(model="ta", model_version="1", request_id="r2")
    for at, size in enumerate(sizes):
        if at in failed:
            answer.panels.add(error=REFUSED)
            continue
        item = answer.panels.add()
        dice = np.random.default_rng(at)
        item.indicators.indicators.add(name="RSI").outputs.add(name="real", values=dice.normal(size=size))
        macd = item.indicators.indicators.add(name="MACD")
        for output in ("macd", "macdsignal", "macdhist"):
            macd.outputs.add(name=output, values=dice.normal(size=size))
    return answer


def read_panels(answer: pb.ComputeIndicatorsResponse) -> bulk.IndicatorAnswers:
    sizes = [
        len(one.indicators.indicators[0].outputs[0].values) if one.HasField("indicators") else 1
        for one in answer.panels
    ]
    call = calls.indicators([np.arange(float(size)) for size in sizes], ["RSI:timeperiod=14", "MACD"], 0)
    found = call.read([answer.SerializeToString()])
    assert isinstance(found, bulk.IndicatorAnswers)
    return found


@given(symbols=st.lists(st.text("ABCÄ", min_size=1, max_size=9), min_size=2, max_size=30, unique=True), data=st.data())
def test_the_arrays_hold_what_the_items_hold(symbols: list[str], data: st.DataObject) -> None:
    failed = data.draw(st.sets(st.integers(0, len(symbols) - 1), max_size=len(symbols) - 1))
    answer = predicted(symbols, failed)
    found = read_predicted([answer], symbols)
    assert found.point.shape == (len(symbols), 4)
    assert found.quantiles.shape == (len(symbols), 4, 3)
    np.testing.assert_array_equal(found.levels, LEVELS)
    assert set(np.flatnonzero(found.failed).tolist()) == failed == set(found.errors)
    for at, symbol in enumerate(symbols):
        if at in failed:
            assert np.isnan(found.point[at]).all()
            assert np.isnan(found.quantiles[at]).all()
            with pytest.raises(InvalidRequestError, match=f"{symbol}: series.1.: too short"):
                found[symbol]
            continue
        item, sent = found[symbol], answer.forecasts[at].forecast
        np.testing.assert_array_equal(found.point[at], item.point)
        np.testing.assert_array_equal(found.quantiles[at], item.quantiles)
        np.testing.assert_array_equal(item.quantiles.ravel(), sent.quantiles)
        assert (item.gate, item.logs, item.context) == (sent.gate, sent.logs, sent.context)
        assert item.coverage.origins == sent.coverage.origins
        assert (item.symbol, item.model, item.model_version, item.request_id) == (symbol, "walk", "3", "r1")


def test_a_lone_forecast_is_frozen_like_any_other() -> None:
    found = calls.predict(SERIES, 4, LEVELS, "").read([predicted([""], set()).SerializeToString()])
    assert isinstance(found, Forecast)
    for value in (found, found.coverage):
        with pytest.raises(FrozenInstanceError):
            setattr(value, fields(value)[0].name, 1)
    assert pickle.loads(pickle.dumps(found)).coverage == found.coverage  # noqa: S301
    assert hash(found.coverage) == hash(Coverage(*[getattr(found.coverage, one.name) for one in fields(Coverage)]))


def test_arrays_of_users_are_their_own() -> None:
    found = read_predicted([predicted(["", ""], set())], ["", ""])
    for array in (found.point, found.quantiles, found[0].point, found[0].quantiles, found.levels):
        assert array.flags.writeable
        assert array.flags.aligned
        assert array.flags.c_contiguous
        array[...] = 0
    assert found[1].point.any()


def test_items_are_read_once_when_they_are_reached_for(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    twin = response.twin
    monkeypatch.setattr(response, "twin", lambda kind, raw: (read.append(kind), twin(kind, raw))[1])
    found = read_predicted([predicted([""] * 9, {3})], [""] * 9)
    assert pb.Forecast not in read
    assert read.count(pb.SeriesForecast) == 1
    assert found[4] is found[-5]
    assert read.count(pb.Forecast) == 1
    assert len(found.errors) == 1
    assert (read.count(pb.Forecast), read.count(pb.SeriesForecast)) == (1, 1)
    assert [len(list(found)), len(found.answered)] == [9, 8]
    assert (read.count(pb.Forecast), read.count(pb.SeriesForecast)) == (8, 1)


def versions(*given: str) -> list[pb.PredictResponse]:
    """Responses to the requests of a call of 600 series, each of a version; no model named for an empty one."""
    made = [predicted([""] * size, set()) for size in (256, 256, 88)]
    for answer, version in zip(made, given, strict=True):
        answer.model_version = version
        answer.model = "walk" if version else ""
    return made


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("3", "3", "3"), ""),
        (("3", "", "3"), ""),
        (("3", "4", "4"), "walk 3, walk 4"),
        (("4", "3", "4"), "walk 4, walk 3"),
    ],
)
def test_answers_of_several_models_say_so(given: tuple[str, ...], says: str) -> None:
    found = read_predicted(versions(*given), [""] * 600)
    assert found.notes == ((f"the requests of this call were answered by different models: {says}",) if says else ())
    assert ("2 models" in repr(found)) == bool(says)
    assert pickle.loads(pickle.dumps(found)).notes == found.notes  # noqa: S301


def test_indicators_and_sentiments_of_several_models_say_so() -> None:
    parts = []
    for version in ("1", "2"):
        answer = panels([40] * 64)
        answer.model_version = version
        parts.append(answer.SerializeToString())
    assert "ta 1, ta 2" in calls.indicators([SERIES] * 128, ["RSI:timeperiod=14", "MACD"], 0).read(parts).notes[0]
    texts = [
        pb.AnalyzeSentimentResponse(
            sentiments=[pb.TextSentiment(sentiment=pb.Sentiment(label=2, neutral=1, chunks=1))] * 100,
            model="mood",
            model_version=version,
        ).SerializeToString()
        for version in ("1", "2")
    ]
    assert "mood 1, mood 2" in calls.sentiment(["profit rose"] * 200, "").read(texts).notes[0]


def test_requests_of_one_call_are_one_array_and_a_lost_request_is_rows_of_nan() -> None:
    symbols = [f"S{at}" for at in range(600)]
    lost = UnavailableError("away", code="UNAVAILABLE")
    found = read_predicted([predicted(symbols[:256], {7}), lost, predicted(symbols[512:], set())], symbols)
    assert np.isnan(found.quantiles).any(axis=(1, 2)).nonzero()[0].tolist() == [7, *range(256, 512)]
    np.testing.assert_array_equal(found.quantiles[599], found["S599"].quantiles)
    assert found.errors[300] is lost
    with pytest.raises(
        InvalidRequestError, match=r"^257 of 600 items failed \(S7, S256, .*S259 and 252 more\): S7: series"
    ):
        found.raise_errors()
    read_predicted([predicted(["A"], set())], ["A"]).raise_errors()


def test_a_call_whose_items_all_failed_raises_instead_of_giving_arrays() -> None:
    found = read_predicted([predicted(["A", "B"], {0, 1})], ["A", "B"])
    with pytest.raises(InvalidRequestError, match="A: series"):
        _ = found.quantiles


def test_pickles_hold_answers_and_arrays() -> None:
    found = read_predicted([predicted(["A", "B", "C"], {1})], ["A", "B", "C"])
    again = pickle.loads(pickle.dumps(found))  # noqa: S301
    np.testing.assert_array_equal(again.quantiles, found.quantiles)
    assert again["C"].source.symbol == "C"
    assert isinstance(again.errors[1], InvalidRequestError)
    table = pickle.loads(pickle.dumps(read_panels(panels([5, 5]))))  # noqa: S301
    np.testing.assert_array_equal(table.column("MACD.macd"), [table[0]["MACD.macd"], table[1]["MACD.macd"]])


@pytest.mark.parametrize("failed", [set(), {0}, {2, 3}])
def test_the_columns_of_indicators_hold_what_the_items_hold(failed: set[int]) -> None:
    found = read_panels(panels([50] * 6, failed))
    plain = [read_panels(panels([50] * 6, failed))[at] if at not in failed else None for at in range(6)]
    for name in ("RSI", "RSI:timeperiod=14", "RSI.real", "MACD.macd", "MACD.macdsignal", "MACD.macdhist"):
        column = found.column(name)
        assert column.shape == (6, 50)
        assert column.flags.aligned
        assert column.flags.writeable
        for at, item in enumerate(plain):
            if item is None:
                assert np.isnan(column[at]).all()
            else:
                np.testing.assert_array_equal(column[at], item[name])
    assert list(np.flatnonzero(found.failed)) == sorted(failed)


def test_items_of_one_layout_are_those_that_protobuf_reads() -> None:
    answer = panels([50] * 4, {1})
    found = read_panels(answer)
    for at in (0, 2, 3):
        sent = answer.panels[at].indicators.indicators
        np.testing.assert_array_equal(found[at]["RSI"], sent[0].outputs[0].values)
        np.testing.assert_array_equal(found[at]["MACD.macdhist"], sent[1].outputs[2].values)
        assert list(found[at]) == ["RSI", "MACD.macd", "MACD.macdsignal", "MACD.macdhist"]
        assert (found[at].model, found[at].request_id) == ("ta", "r2")


def test_lone_answers_of_one_size_and_other_layouts_are_told_apart() -> None:
    """A layout is used again only for an answer with equal bytes around the numbers."""
    call = calls.indicators(SERIES[:3], ["SMA", "EMA"], 0)
    for names in (("real", "x"), ("real", "y"), ("real", "x"), ("x", "real")):
        answer = pb.ComputeIndicatorsResponse(request_id="r", model="ta-lib")
        found = answer.panels.add().indicators
        for at, (indicator, output) in enumerate(zip(("SMA", "EMA"), names, strict=True)):
            one = found.indicators.add(name=indicator).outputs.add(name=output)
            one.values.extend([at + 1.0, 2.0, 3.0])
        for _ in range(2):
            read = call.read([answer.SerializeToString()])
            assert [*read._outputs["SMA"], *read._outputs["EMA"]] == [*names]
            assert (read["SMA"].tolist(), read["EMA"].tolist()) == ([1.0, 2.0, 3.0], [2.0, 2.0, 3.0])
            assert (read.request_id, read.model) == ("r", "ta-lib")
            read["SMA"][0] = 9.0


def test_instruments_with_different_numbers_of_bars_have_no_common_array() -> None:
    found = read_panels(panels([50, 51]))
    assert (len(found[0]["RSI"]), len(found[1]["RSI"])) == (50, 51)
    with pytest.raises(ValueError, match="RSI: the items have 50 to 51 values: ask for the newest with last="):
        found.column("RSI")


def test_unknown_columns_name_the_known_ones() -> None:
    found = read_panels(panels([50, 50]))
    with pytest.raises(KeyError, match="there are RSI, MACD"):
        found.column("SMA")
    with pytest.raises(KeyError, match="MACD has macd, macdsignal, macdhist"):
        found.column("MACD.signal")
    with pytest.raises(KeyError, match=r"name one, such as 'MACD\.macd'"):
        found.column("MACD")


def unpacked(values: list[float]) -> bytes:
    """`repeated double` field 1 in the other form that readers must take: a tag before every number."""
    return b"".join(b"\x09" + np.float64(value).tobytes() for value in values)


def test_answers_in_other_encodings_than_the_service_s_are_read_alike() -> None:
    answer = predicted(["", "", ""], {2})
    first = answer.forecasts[0].forecast
    odd = pb.Forecast()
    odd.CopyFrom(first)
    odd.ClearField("point")
    body = odd.SerializeToString() + unpacked(first.point)
    item = b"".join(wireformat.pieces(response.RESULT, body))
    rest = pb.PredictResponse()
    rest.CopyFrom(answer)
    del rest.forecasts[0]
    # The first item alone at the beginning, the other fields before the other items.
    raw = b"".join(wireformat.pieces(1, item)) + rest.SerializeToString()[::1]
    call = calls.predict([SERIES] * 3, 4, LEVELS, "")
    found, usual = call.read([raw]), read_predicted([answer], ["", "", ""])
    assert isinstance(found, bulk.ForecastAnswers)
    np.testing.assert_array_equal(found.point, usual.point)
    np.testing.assert_array_equal(found.quantiles, usual.quantiles)
    np.testing.assert_array_equal(found[0].point, usual[0].point)
    last_first = rest.SerializeToString() + b"".join(wireformat.pieces(1, item))
    moved = call.read([last_first])
    assert isinstance(moved, bulk.ForecastAnswers)
    np.testing.assert_array_equal(moved[2].point, usual[0].point)


@pytest.mark.parametrize(
    "raw", [b"\xff\xff", predicted([""] * 2, set()).SerializeToString(), b"\x0a\x7f"], ids=["noise", "two", "cut off"]
)
def test_bytes_that_are_no_answer_are_a_typed_error(raw: bytes) -> None:
    call = calls.predict([SERIES] * 3, 4, LEVELS, "")
    with pytest.raises(InternalError, match="the service sent"):
        call.read([raw])


@pytest.mark.parametrize(
    "item",
    [
        pb.SeriesForecast(),
        pb.SeriesForecast(forecast=forecast(1, levels=2)),
        pb.SeriesForecast(forecast=pb.Forecast(point=[1.0] * 3, quantiles=[1.0] * 12)),
    ],
    ids=["no result", "levels", "steps"],
)
def test_an_item_that_is_no_forecast_is_a_typed_error(item: pb.SeriesForecast) -> None:
    one = pb.PredictResponse(forecasts=[item], quantile_levels=LEVELS)
    with pytest.raises(InternalError, match="the service sent"):
        calls.predict(SERIES, 4, LEVELS, "").read([one.SerializeToString()])
    many = read_predicted([pb.PredictResponse(forecasts=[item] * 2, quantile_levels=LEVELS)], ["", ""])
    assert [type(found) for found in many.values()] == [InternalError] * 2
    with pytest.raises(InternalError, match="the service sent"):
        _ = many.quantiles


def test_errors_are_answers_in_their_places() -> None:
    found = read_predicted([predicted(["A", "B"], {1})], ["A", "B"])
    assert isinstance(found.values()[1], MarketInferenceError)
    assert "1 failed" in repr(found)
