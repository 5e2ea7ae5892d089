"""Covariates and groups in the forms that users have them in, row by row beside their series."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest

from market_inference.client import calls
from market_inference.client.inputs import beside
from market_inference.client.inputs.series import series
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.errors import ArgumentError, InputWarning

N, HORIZON = 40, 3
CLOSE = 100 + np.arange(N) * 0.5
VOLUME = 1000.0 + np.arange(N)
LONGER = 1000.0 + np.arange(N + HORIZON)
DAYS = pd.date_range("2026-01-05", periods=N + HORIZON, freq="B")


def sent(given, covariates=None, known_ahead=(), groups=None) -> pb.PredictRequest:
    (raw,) = calls.predict(given, HORIZON, None, "chronos_2", None, 0, covariates, known_ahead, groups).requests
    return pb.PredictRequest.FromString(raw)


def rows(one: pb.Series) -> list[list[float]]:
    return np.reshape(one.past_covariates, (-1, len(one.values))).tolist()


def ahead(one: pb.Series) -> list[list[float]]:
    return np.reshape(one.future_covariates, (-1, HORIZON)).tolist()


@pytest.mark.parametrize(
    "given",
    [
        {"volume": VOLUME},
        {"volume": VOLUME.tolist()},
        {"volume": pd.Series(VOLUME)},
        {"volume": pl.Series(VOLUME)},
        pd.DataFrame({"volume": VOLUME}),
        pl.DataFrame({"volume": VOLUME}),
    ],
    ids=["array", "list", "pandas column", "polars column", "pandas frame", "polars frame"],
)
def test_columns_of_one_series_by_position(given) -> None:
    request = sent(CLOSE, given)
    assert list(request.covariates) == ["volume"]
    assert rows(request.series[0]) == [VOLUME.tolist()]
    assert not request.series[0].future_covariates


def test_a_covariate_may_be_true_or_false() -> None:
    for flags in ([True, False], [True, None]):
        (one,) = sent(CLOSE, {"holiday": flags * (N // 2)}).series
        assert [value for value in one.past_covariates if value == value][:2] == [
            1.0,
            0.0 if None not in flags else 1.0,
        ]


def test_values_ahead_are_read_for_those_that_are_known_ahead_alone() -> None:
    request = sent(CLOSE, {"volume": VOLUME, "holiday": LONGER}, ["holiday"])
    assert list(request.covariates) == ["volume", "holiday"]
    assert rows(request.series[0]) == [VOLUME.tolist(), LONGER[:N].tolist()]
    unknown, known = ahead(request.series[0])
    assert np.isnan(unknown).all()
    assert known == LONGER[N:].tolist()


def test_rows_are_matched_by_time() -> None:
    """The covariate begins later, misses a day, descends, and goes on after the newest day of the series."""
    close = pd.Series(CLOSE, index=DAYS[:N])
    frame = pd.DataFrame({"vix": LONGER}, index=DAYS).drop([DAYS[0], DAYS[7]]).iloc[::-1]
    expected = np.where(np.isin(np.arange(N), [0, 7]), np.nan, LONGER[:N])
    past_alone = sent(close, frame)
    np.testing.assert_array_equal(rows(past_alone.series[0])[0], expected)
    assert not past_alone.series[
        0
    ].future_covariates  # the future of the covariate is no input unless the caller says so
    known = sent(close, frame, ["vix"])
    assert ahead(known.series[0]) == [LONGER[N:].tolist()]


def test_many_series_have_columns_by_symbol_or_share_one() -> None:
    closes = pd.DataFrame({"A": CLOSE, "B": CLOSE + 1}, index=DAYS[:N])
    volumes = pd.DataFrame({"B": VOLUME + 5, "A": VOLUME, "C": VOLUME}, index=DAYS[:N])
    request = sent(closes, {"volume": volumes, "vix": pd.Series(LONGER, index=DAYS)})
    assert [one.symbol for one in request.series] == ["A", "B"]
    assert rows(request.series[0]) == [VOLUME.tolist(), LONGER[:N].tolist()]
    assert rows(request.series[1]) == [(VOLUME + 5).tolist(), LONGER[:N].tolist()]
    in_order = sent([CLOSE, CLOSE + 1], {"volume": [VOLUME, VOLUME + 5]})
    assert [rows(one)[0][0] for one in in_order.series] == [1000.0, 1005.0]


def test_a_series_that_begins_later_keeps_its_rows_by_time() -> None:
    late = np.where(np.arange(N) < 5, np.nan, CLOSE)
    closes = pd.DataFrame({"A": CLOSE, "B": late}, index=DAYS[:N])
    request = sent(closes, pd.DataFrame({"vix": VOLUME}, index=DAYS[:N]))
    assert [len(one.values) for one in request.series] == [N, N - 5]
    assert rows(request.series[1]) == [VOLUME[5:].tolist()]


@pytest.mark.parametrize(
    ("given", "covariates", "known", "message"),
    [
        (CLOSE, {"volume": VOLUME[1:]}, (), "expected 40 values, one for each of the series, got 39"),
        (CLOSE, {"volume": LONGER}, (), "expected 40 values, one for each of the series, got 43"),
        (CLOSE, {"volume": VOLUME}, ["volume"], "expected 43 values, .* and 3 for the steps ahead, got 40"),
        (CLOSE, {"volume": VOLUME}, ["vol"], "there is no covariate 'vol'; there are volume"),
        (CLOSE, {"volume": VOLUME}, "volume", "known_ahead: expected names of covariates"),
        (CLOSE, None, ["volume"], "expected a mapping of name to column"),
        (CLOSE, VOLUME, (), "expected a mapping of name to column"),
        (CLOSE, {}, (), "expected at least one covariate, got none"),
        ({"A": CLOSE, "B": CLOSE}, {"v": {"A": VOLUME}}, (), "no column for the series 'B'; there are A"),
        ([CLOSE, CLOSE], {"v": [VOLUME]}, (), "there are 2 series and 1 columns"),
        (
            pd.Series(CLOSE, index=DAYS[:N]), {"v": pd.Series(VOLUME, index=DAYS[:N] - pd.Timedelta("9999D"))}, (),
            "no time of the series is among its times",
        ),
        (
            pd.Series(CLOSE, index=DAYS[:N]), {"v": pd.Series(LONGER[:-1], index=DAYS[:-1])}, ["v"],
            "has 2 rows after the newest of the series, 2026-02-27; there are 3 steps ahead",
        ),
    ],
)  # fmt: skip
def test_columns_that_do_not_fit_are_refused(given, covariates, known, message) -> None:
    with pytest.raises(ArgumentError, match=message):
        sent(given, covariates, known)


@pytest.mark.parametrize("horizon", [366, 10**9, 2**31])
def test_an_absurd_horizon_is_refused_before_rows_are_made(horizon: int) -> None:
    with pytest.raises(ArgumentError, match=f"horizon: expected at most 365 steps, got {horizon}"):
        calls.predict(CLOSE, horizon, None, "chronos_2", None, 0, {"volume": VOLUME}, (), None)


@pytest.mark.filterwarnings("ignore:the index descends")
def test_a_position_in_reversed_rows_is_not_trusted() -> None:
    with pytest.raises(ArgumentError, match="reversed to oldest first: give the covariate with times"):
        sent(pd.Series(CLOSE, index=DAYS[:N][::-1]), {"v": VOLUME})


def test_groups_in_every_form() -> None:
    closes = {"A": CLOSE, "B": CLOSE, "C": CLOSE}
    assert list(sent(closes, groups=True).groups) == [beside.TOGETHER] * 3
    assert list(sent(closes, groups={"A": "banks", "C": "banks"}).groups) == ["banks", "", "banks"]
    assert list(sent(closes, groups=["x", None, 7]).groups) == ["x", "", "7"]
    assert list(sent(closes, groups=False).groups) == []


@pytest.mark.parametrize(
    ("given", "groups", "message"),
    [
        (CLOSE, True, "there is one series"),
        ({"A": CLOSE}, {"B": "x"}, "there is no series 'B'; there are A"),
        ({"A": CLOSE, "B": CLOSE}, ["x"], "there are 2 series and 1 labels"),
        ({"A": CLOSE, "B": CLOSE}, "banks", "expected True, a mapping of symbol to label"),
        ([CLOSE] * 257, True, "257 are more than one request holds .* a group is one request"),
    ],
)
def test_groups_that_do_not_fit_are_refused(given, groups, message) -> None:
    with pytest.raises(ArgumentError, match=message):
        sent(given, groups=groups)


def test_the_bytes_of_covariates_count_for_the_size_of_a_request() -> None:
    """48 MB of columns beside 3 MB of values make several requests."""
    closes = [np.arange(3000.0)] * 100
    found = calls.predict(closes, HORIZON, None, "m", None, 0, {str(at): np.arange(3000.0) for at in range(15)})
    assert all(len(raw) < 8 << 20 for raw in found.requests)
    assert len(found.requests) > 4
    asked = [pb.PredictRequest.FromString(raw) for raw in found.requests]
    assert sum(len(one.series) for one in asked) == 100
    assert {len(one.covariates) for one in asked} == {15}


def test_series_alone_is_as_before() -> None:
    assert series(CLOSE).items[0].past is None


def asked(given, times) -> pb.PredictRequest:
    (raw,) = calls.predict(given, HORIZON, None, "", times=times).requests
    return pb.PredictRequest.FromString(raw)


def test_times_of_the_series_or_of_their_own() -> None:
    expected = DAYS[:N].as_unit("ns").asi8.tolist()
    frame = pd.DataFrame({"A": CLOSE, "B": CLOSE}, index=DAYS[:N])
    for given, times in (
        (frame["A"], True),
        (frame, True),
        (frame["A"].iloc[::-1], True),
        ({"date": DAYS[:N], "close": CLOSE}, True),
        (CLOSE, DAYS[:N]),
        (CLOSE, [str(day) for day in DAYS[:N]]),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InputWarning)
            request = asked(given, times)
        assert [list(one.times) for one in request.series] == [expected] * len(request.series)
    assert not asked(frame, None).series[0].times


@pytest.mark.parametrize(
    ("given", "times", "message"),
    [
        (CLOSE, True, "the series has no times"),
        ({"A": CLOSE}, True, "the series 'A' has no times"),
        ({"A": CLOSE}, DAYS[:N], "give True for the times of each series"),
        (CLOSE, DAYS, "has 40 values, and there are 43 times"),
        (CLOSE, DAYS[:N][::-1], "newest first"),
    ],
)
def test_times_that_do_not_fit_are_refused(given, times, message) -> None:
    with pytest.raises(ArgumentError, match=message):
        asked(given, times)
