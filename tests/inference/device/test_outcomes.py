"""A model's outcome of another type, layout or value than documented never becomes an answer."""

import warnings
from typing import Any

import numpy as np
import pytest

from inference.device import outcomes
from market_inference.contract.errors import InternalError
from models import indicators
from models.forecast import Forecast, Group, Series
from models.forecast.series import Phases
from models.indicators import SpoiltSumsError
from models.warning import AnswerWarning, WarningCode

LEVELS = (0.1, 0.5, 0.9)
ITEM = Series(np.arange(1.0, 41.0), 4, LEVELS)
GOOD = Forecast(np.ones(4), np.ones((4, 3)), 0.0, True, 40, float("nan"), 0)


def spoiled(value: float) -> Forecast:
    quantiles = np.ones((4, 3))
    quantiles[2, 1] = value
    return GOOD._replace(quantiles=quantiles)


def points(values: Any) -> Forecast:
    return GOOD._replace(point=values)


def quantiles(values: Any) -> Forecast:
    return GOOD._replace(quantiles=values)


WARNING = AnswerWarning(WarningCode.STALE_TAIL, "The series stands still.", (("values", (3.0,)),))
PHASES = Phases(np.array([0.5, np.nan]), np.array([2, 0]), np.array([0, 1, 0, 1]))
INVALID = [
    (spoiled(np.nan), "not finite"),
    (spoiled(np.inf), "not finite"),
    (points(np.array([1.0, 1.0, 1.0, -np.inf])), "not finite"),
    (spoiled(0.5), "descend along the levels"),
    (points(np.ones(3)), "point of the shape (3,), not (4,)"),
    (quantiles(np.ones((3, 4))), "quantiles of the shape (3, 4), not (4, 3)"),
    (points(np.ones(4, dtype=np.float32)), "point of <f4, not of <f8"),
    (points(np.ones(4, dtype=np.int64)), "point of <i8"),
    (points(np.ones(4, dtype=">f8")), "point of >f8"),
    (points(np.ones(4, dtype=object)), "point of |O"),
    (points(np.ones(4, dtype=complex)), "point of <c16"),
    (points(np.ma.masked_array(np.ones(4), mask=True)), "a MaskedArray as point"),
    (points([1.0] * 4), "a list as point"),
    (points(None), "a NoneType as point"),
    (quantiles(np.asfortranarray(np.ones((4, 3)))), "quantiles that are not C-contiguous"),
    (quantiles(np.ones((4, 6))[:, ::2]), "quantiles that are not C-contiguous"),
    (points(np.ones(8)[::2]), "point that are not C-contiguous"),
    (GOOD._replace(gate=1.5), "gate"),
    (GOOD._replace(gate=float("nan")), "gate"),
    (GOOD._replace(gate=np.array([1.0])), "gate"),
    (GOOD._replace(logs="yes"), "logs"),
    (GOOD._replace(context=-1), "context"),
    (GOOD._replace(context=41), "context"),
    (GOOD._replace(context=True), "context"),
    (GOOD._replace(coverage=None), "coverage"),
    (GOOD._replace(coverage=5.0, coverage_count=3), "coverage"),
    (GOOD._replace(coverage=0.8), "coverage"),
    (GOOD._replace(coverage=0.8, coverage_count=1.5), "coverage_count"),
    (GOOD._replace(coverage_count=-1), "coverage_count"),
    (GOOD._replace(warnings=None), "warnings"),
    (GOOD._replace(warnings=("old data",)), "warnings"),
    (GOOD._replace(warnings=(WARNING._replace(code="OLD_DATA"),)), "warnings"),
    (GOOD._replace(warnings=(WARNING._replace(evidence=(("values", 3.0),)),)), "fields of other types"),
    (GOOD._replace(phases=(1, 2, 3)), "phases"),
    (GOOD._replace(phases=1), "fields of other types"),
    (GOOD._replace(phases=PHASES._replace(measured=np.array([0.5, 0.5]))), "phases"),
    (GOOD._replace(phases=PHASES._replace(origins=np.array([2, 1, 0]))), "phases"),
    (GOOD._replace(phases=PHASES._replace(ahead=np.array([0, 1, 2, 0]))), "phases"),
    (tuple(GOOD), "a tuple, no Forecast"),
    (GOOD[:2], "a tuple, no Forecast"),
    (None, "a NoneType, no Forecast"),
    ("text", "a str, no Forecast"),
    (RuntimeError(), "a RuntimeError, no Forecast"),
]


@pytest.mark.parametrize(("outcome", "mistake"), INVALID)
@pytest.mark.parametrize("mates", [1, 5], ids=["few", "many"])
def test_a_forecast_is_invalid_alone_among_valid_ones(outcome, mistake, mates):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = outcomes.forecasts([ITEM] * (mates + 2), [*[GOOD] * mates, outcome, InternalError()])
        grouped = outcomes.forecasts([Group((ITEM, ITEM)), Group((ITEM, ITEM))], [(GOOD, GOOD), (GOOD, outcome)])
    assert [*found] == [mates]
    assert mistake in found[mates]
    assert mistake in grouped[1]


GOOD_ONES = [
    GOOD,
    GOOD._replace(coverage=np.float64(0.5), coverage_count=np.int64(4), context=np.int32(3), gate=np.float32(0.5)),
    GOOD._replace(warnings=(WARNING,), logs=np.bool_(False), phases=PHASES),
    GOOD._replace(phases=PHASES._replace(ahead=None), gate=1),
    spoiled(1 - 1e-12),
]


def test_a_forecast_as_documented_is_valid_alone_and_in_any_batch():
    for good in GOOD_ONES:
        assert outcomes.forecasts([ITEM], [good]) == {}
    assert outcomes.forecasts([ITEM] * 5, GOOD_ONES) == {}


@pytest.mark.parametrize(
    ("change", "mistake"),
    [
        (lambda points, bands: (points, bands[:, :, ::-1]), "not C-contiguous"),
        (lambda points, bands: (points.astype(">f8"), bands), "point of >f8"),
        (lambda points, bands: (points, bands.astype(np.float32)), "quantiles of <f4"),
        (lambda points, bands: (points, bands.swapaxes(0, 1).copy().swapaxes(0, 1)), "not C-contiguous"),
        (lambda points, bands: (points[:, ::-1], bands), "not C-contiguous"),
        (lambda points, bands: (points, -bands), "descend along the levels"),
        (lambda points, bands: (np.ones((5, 4))[:, :2], bands), "point of the shape"),
    ],
)
def test_rows_of_one_array_are_looked_at_as_closely(change, mistake):
    bands = np.sort(np.random.default_rng(0).random((5, 3, 3)))
    item = ITEM._replace(horizon=3)

    def found(points: Any, bands: Any) -> Any:
        rows = zip(points, bands, strict=True)
        return outcomes.forecasts([item] * 5, [GOOD._replace(point=point, quantiles=band) for point, band in rows])

    assert found(np.ones((5, 3)), bands) == {}
    changed = found(*change(np.ones((5, 3)), bands))
    assert [*changed] == [0, 1, 2, 3, 4]
    assert mistake in changed[0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gate", 1.5),
        ("gate", float("nan")),
        ("gate", np.array([1.0])),
        ("logs", "yes"),
        ("context", 0),
        ("context", 41),
        ("context", True),
        ("coverage", 0.8),
        ("coverage_count", -1),
        ("coverage_count", 1 << 31),
        ("coverage_count", 0),
        ("warnings", None),
        ("warnings", ("old data",)),
        ("warnings", (WARNING._replace(evidence=3),)),
        ("phases", 1),
        ("phases", PHASES._replace(origins=np.array([2, 1, 0]))),
    ],
)
def test_the_fields_beside_rows_of_one_array_are_looked_at_as_closely(field, value):
    rows = [GOOD._replace(point=p, quantiles=q) for p, q in zip(np.ones((5, 4)), np.ones((5, 4, 3)), strict=True)]
    assert outcomes.forecasts([ITEM] * 5, rows) == {}
    assert [*outcomes.forecasts([ITEM, ITEM, ITEM._replace(horizon=3), ITEM, ITEM], rows)] == [2]
    rows[2] = rows[2]._replace(**{"coverage": 0.5 if field == "coverage_count" else GOOD.coverage, field: value})
    assert [*outcomes.forecasts([ITEM] * 5, rows)] == [2]


def test_finite_numbers_of_any_size_are_valid():
    huge = GOOD._replace(quantiles=np.full((4, 3), 1e300), point=np.full(4, -1e300))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert outcomes.forecasts([ITEM], [huge]) == {}


@pytest.mark.parametrize(
    "outcome",
    [
        np.array([0.1, np.nan, 0.9]),
        np.array([0.1, 0.2, 0.9]),
        np.array([-0.1, 0.2, 0.9]),
        np.array([2.1, -1.4, 0.3]),
        np.array([0, 0, 1]),
        np.array([0.1, 0.2, 0.7], dtype=object),
        np.ma.masked_array([0.1, 0.2, 0.7], mask=True),
        np.ones(2),
        [0.1, 0.2, 0.7],
        ValueError(),
    ],
)
def test_sentiment_needs_three_probabilities(outcome):
    good = np.array([0.1, 0.2, 0.7], dtype=np.float32)
    assert set(outcomes.sentiments(["a", "b", "c"], [good, outcome, InternalError()])) == {1}


def answered(*specs: indicators.Spec) -> tuple[indicators.Task, Any]:
    task = indicators.Task(indicators.Panel(close=np.arange(1.0, 41.0)), indicators.compile(list(specs)))
    (rows,) = indicators.load().run([task])
    return task, rows


@pytest.mark.parametrize(
    ("spoil", "mistake"),
    [
        (lambda rows: rows[:2], "shape"),
        (lambda rows: rows[:, 1:], "shape"),
        (lambda rows: rows.astype(np.float32), "<f4"),
        (lambda rows: np.asfortranarray(rows), "not C-contiguous"),
        (lambda rows: list(rows)[:2], "no list of 3 rows"),
        (lambda rows: [*rows[:2], rows[2][1:]], "shape (39,), not (40,)"),
        (lambda rows: [*rows[:2], rows[2][::-1]], "not C-contiguous"),
        (lambda rows: None, "no list"),
        (lambda rows: RuntimeError(), "no list"),
    ],
)
def test_indicators_need_a_row_per_output_and_may_have_a_warm_up(spoil, mistake):
    task, rows = answered(indicators.Spec("MACD"))
    assert np.isnan(rows).any()
    found = outcomes.indicators([task] * 4, [rows, [*rows], SpoiltSumsError(2.0), spoil(rows)])
    assert [*found] == [3]
    assert mistake in found[3]


def test_indicators_have_as_many_of_the_newest_values_as_were_asked_for():
    task, rows = answered(indicators.Spec("SMA", last=3), indicators.Spec("RSI"), indicators.Spec("EMA", last=90))
    assert [len(row) for row in rows] == [3, 40, 40]
    swapped = [rows[1], rows[0], rows[2]]
    assert set(outcomes.indicators([task] * 3, [rows, swapped, np.ones((3, 40))])) == {1, 2}
