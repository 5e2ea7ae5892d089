"""Phases from instants: the hour of the day through gaps, nights, weekends and the change to summer time."""

import numpy as np
import pandas as pd
import pytest

from models.forecast import Series, load
from models.forecast.clock import MOST_PHASES, clock_of
from models.warning import WarningCode

LEVELS = (0.1, 0.5, 0.9)
HOUR = 3600 * 10**9
START = pd.Timestamp("2026-01-05").value


def hourly(count: int) -> np.ndarray:
    return START + HOUR * np.arange(count)


def prices(hours: np.ndarray, seed: int = 0) -> np.ndarray:
    """Steps into the hours 8 to 15 are five times as large as those into the others."""
    size = np.where((hours >= 8) & (hours < 16), 0.01, 0.002)
    return 100 * np.exp(np.cumsum(size * np.random.default_rng(seed).normal(size=len(hours))))


def hours_of(times: np.ndarray) -> np.ndarray:
    return times // HOUR % 24


def item(times: np.ndarray, horizon: int = 24, period: int = 0) -> Series:
    return Series(np.ones(len(times)), horizon, LEVELS, period=period, times=times)


def test_instants_without_gaps_say_what_a_period_says() -> None:
    times = hourly(500)
    values = prices(hours_of(times))
    by_period, by_time, both = load("auto").run(
        [
            Series(values, 30, LEVELS, period=24),
            Series(values, 30, LEVELS, times=times),
            Series(values, 30, LEVELS, period=24, times=times),
        ]
    )
    for found in (by_time, both):
        np.testing.assert_allclose(found.quantiles, by_period.quantiles, rtol=1e-12)
        np.testing.assert_array_equal(found.phases.measured, by_period.phases.measured)
        np.testing.assert_array_equal(found.phases.origins, by_period.phases.origins)
        np.testing.assert_array_equal(found.phases.ahead, np.arange(1, 31) % 24)
    assert by_period.phases.ahead is None


def test_missing_bars_shift_no_phase() -> None:
    """A fifth of the bars is missing: by position the hours blur, by time the calm night keeps its narrow bands."""
    kept = np.sort(np.random.default_rng(1).choice(1000, 800, replace=False))
    times = hourly(1000)[kept]
    times = times[: np.flatnonzero(hours_of(times) == 23)[-1] + 1]
    values = prices(hours_of(times))
    by_time, by_period = load("auto").run(
        [Series(values, 1, LEVELS, times=times), Series(values, 1, LEVELS, period=24)]
    )
    width_by_time, width_by_period = (np.ptp(found.quantiles[0]) for found in (by_time, by_period))
    assert width_by_time < 0.6 * width_by_period


def test_the_steps_ahead_leave_the_night_out() -> None:
    """Bars at 9 to 15 o'clock on weekdays: after 15 comes 9, whose phase is 18 hours later."""
    days = pd.bdate_range("2026-01-05", periods=20)
    times = np.sort(np.concatenate([(days + pd.Timedelta(hours=hour)).as_unit("ns").asi8 for hour in range(9, 16)]))
    clock = clock_of(item(times, 10), 10)
    assert clock.period == 24
    assert clock.phases[-10:].tolist() == [18, 19, 20, 21, 22, 23, 0, 18, 19, 20]
    assert set(clock.phases[:-10].tolist()) == {18, 19, 20, 21, 22, 23, 0}


def test_the_steps_ahead_follow_the_newest_day_after_a_change_of_the_clock() -> None:
    """In UTC an exchange opens an hour earlier in summer; the next session opens as the newest did."""
    days = pd.bdate_range("2026-03-16", periods=20, tz="America/New_York")
    local = [day + pd.Timedelta(hours=hour) for day in days for hour in range(10, 16)]
    times = pd.DatetimeIndex(local).tz_convert("UTC").as_unit("ns").asi8
    ahead = clock_of(item(times, 6), 6).phases[-6:]
    newest = hours_of(times[-1:])[0]
    assert [(newest + phase) % 24 for phase in ahead] == [14, 15, 16, 17, 18, 19]


@pytest.mark.parametrize(
    ("step", "period", "phases"),
    [
        ("5min", 0, 288), ("1min", 0, 1440), ("10s", 0, MOST_PHASES), ("1h", 12, 12), ("1D", 0, 7), ("7D", 0, None),
        ("30D", 0, None), ("1D", 5, 5),
    ],
)  # fmt: skip
def test_the_cycle_is_a_day_or_a_week(step: str, period: int, phases: int | None) -> None:
    times = START + pd.Timedelta(step).value * np.arange(100)
    clock = clock_of(item(times, 3, period), 3)
    assert (clock.period if clock else None) == phases
    if clock is not None:
        assert clock.phases.shape == (103,)
        assert 0 <= clock.phases.min() <= clock.phases.max() < clock.period


@pytest.mark.parametrize("days", [1, 3])
def test_values_that_share_a_phase_do_not_stop_the_clock(days: int) -> None:
    """Of bars of 20 seconds three share a minute: 30 bars ahead are ten minutes ahead."""
    times = START + 20 * 10**9 * np.arange(days * 4000)
    ahead = clock_of(item(times, 30), 30).phases[-30:]
    assert np.all(np.diff(ahead) >= 0)
    np.testing.assert_allclose(ahead, np.arange(1, 31) / 3, atol=1)


@pytest.mark.parametrize(
    ("count", "period", "minutes", "cycles"),
    [
        (60, 30, 0, 2), (60, 31, 0, 60 / 31), (60, 500, 0, 0.12), (575, 0, 5, 575 / 288), (576, 0, 5, 2),
        (60, 31, 5, 60 / 31), (60, 7, 24 * 60, 60 / 7), (60, 0, 24 * 60, 60 / 7),
    ],
)  # fmt: skip
def test_values_of_less_than_two_cycles_are_told(count: int, period: int, minutes: int, cycles: float) -> None:
    times = START + minutes * HOUR // 60 * np.arange(count) if minutes else None
    values = 100 * np.exp(np.cumsum(0.01 * np.random.default_rng(4).normal(size=count)))
    plain, found = load("auto").run([Series(values, 5, LEVELS), Series(values, 5, LEVELS, period=period, times=times)])
    assert [one.code for one in plain.warnings] == []
    told = [dict(one.evidence) for one in found.warnings if one.code == WarningCode.FEW_CYCLES]
    assert told == ([{"cycles": (pytest.approx(cycles),), "least": (2,)}] if cycles < 2 else [])
    assert len(found.warnings) == len(told)


@pytest.mark.parametrize("days", [(0, 1), (0, 3)], ids=["next day", "after a weekend"])
def test_cycles_count_how_often_the_phases_of_a_session_were_seen(days: tuple[int, int]) -> None:
    """Five-minute bars from 9:30 to 16:00: the cycle is the whole day, and the sessions are a part of the day."""
    bars = START + 5 * HOUR // 60 * np.arange(78)
    first, second = (24 * HOUR * day + bars for day in days)
    for count in (2, 39, 78):
        assert clock_of(item(np.concatenate([first, second[:count]]), 5), 5).cycles == 1 + count / 78
    assert clock_of(item(first, 5), 5).cycles == pytest.approx(78 / 288)


def test_values_that_share_a_phase_are_one_visit() -> None:
    """Ten-second bars of a day: the 1,440 phases are minutes."""
    assert clock_of(item(START + HOUR // 360 * np.arange(8640), 5), 5).cycles == pytest.approx(1, rel=1e-3)


def test_two_weeks_of_daily_bars_are_two_cycles() -> None:
    days = pd.bdate_range("2026-01-05", periods=10).as_unit("ns").asi8
    assert clock_of(item(days, 5), 5).cycles == 2


def test_rows_with_and_without_times_leave_each_other_alone() -> None:
    rng = np.random.default_rng(2)
    walk = 100 * np.exp(np.cumsum(0.01 * rng.normal(size=300)))
    irregular = START + np.cumsum(rng.integers(1, 5, 300)) * HOUR
    items = [
        Series(walk, 9, LEVELS, times=irregular),
        Series(walk[:120], 4, (0.5,)),
        Series(walk, 9, LEVELS, period=7),
        Series(walk[:200], 3, LEVELS, times=START + 7 * 24 * HOUR * np.arange(200)),
    ]
    model = load("auto")
    for one, together in zip(items, model.run(items), strict=True):
        (alone,) = model.run([one])
        np.testing.assert_allclose(together.quantiles, alone.quantiles, rtol=1e-9)
        assert (together.phases is None) is (alone.phases is None)
        if alone.phases is not None:
            np.testing.assert_array_equal(together.phases.measured, alone.phases.measured)
    (weekly,) = model.run([items[3]])
    (plain,) = model.run([items[3]._replace(times=None)])
    np.testing.assert_array_equal(weekly.quantiles, plain.quantiles)
