"""Checks of bars: each finding by its row and its reason."""

import contextlib
import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.plane.checks.cells import CELLS, content, must_be_storable
from training.plane.checks import bars
from training.plane.checks.report import Report
from training.plane.checks.rows import UnreadableError


def series(count: int, symbol: str = "A", seed: int = 1) -> list[dict[str, object]]:
    """A random walk of daily bars."""
    chance, close, rows = random.Random(seed), 100.0, []
    for n in range(count):
        opened = close
        close *= math.exp(chance.gauss(0, 0.01))
        rows.append(
            {"symbol": symbol, "time": f"2026-{1 + n // 28:02d}-{1 + n % 28:02d}", "open": opened,
             "high": max(opened, close) * 1.001, "low": min(opened, close) * 0.999, "close": close,
             "volume": 1000 + chance.random()}
        )  # fmt: skip
    return rows


def check(rows: list[dict[str, object]]) -> Report:
    report = Report()
    header = list(rows[0])
    content = "\n".join([",".join(header), *(",".join(str(row[name]) for name in header) for row in rows)]).encode()
    bars.check([content], report, lambda: None)
    return report


def test_good_bars_of_two_symbols_pass() -> None:
    report = check([*series(100), *series(60, "B", 2)])
    assert (report.reason, dict(report.warnings), report.facts["symbols"]) == ("", {}, 2)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"close": "nan"}, "row 52: close must be a finite number above 0"),
        ({"open": "inf"}, "row 52: open must be a finite number above 0"),
        ({"low": 0}, "row 52: low must be a finite number above 0"),
        ({"high": "x"}, "row 52: high must be a finite number above 0"),
        ({"open": "1_0"}, "row 52: open must be a finite number above 0"),
        ({"close": "\u0661\u0662"}, "row 52: close must be a finite number above 0"),
        ({"volume": "1_0"}, "row 52: volume must be a finite number, 0 or more"),
        ({"high": 1}, "row 52: low <= open, close <= high does not hold"),
        ({"low": 1e9}, "row 52: low <= open, close <= high does not hold"),
        ({"symbol": "A" * 65}, "row 52: at most 64 characters, got 65"),
        ({"volume": -1}, "row 52: volume must be a finite number, 0 or more"),
        ({"time": "51st"}, "row 52: time must be ISO 8601"),
        ({"time": "2026-02-22"}, "row 52: a second bar at 2026-02-22T00:00:00"),
        ({"time": "2026-01-01"}, "row 52: the bar at 2026-01-01T00:00:00 comes after the bar at 2026-02-22T00:00:00"),
    ],
)
def test_a_bad_bar_is_named(change: dict[str, object], reason: str) -> None:
    rows = series(100)
    rows[50] |= change
    assert check(rows).reason.startswith(reason)


def test_too_few_bars_and_missing_columns() -> None:
    assert "at least 30 bars of B, got 9" in check([*series(100), *series(9, "B")]).reason
    assert "no column 'close'" in check([{"time": "2026-01-01", "open": 1, "high": 1, "low": 1}]).reason


@pytest.mark.parametrize(
    ("ratio", "volume", "warned"), [(0.5, 1, True), (3.0, 1, True), (0.5, 20, False), (0.77, 1, False)]
)
def test_a_jump_like_a_split_is_a_warning_unless_the_volume_explains_it(
    ratio: float, volume: float, warned: bool
) -> None:
    rows = series(100)
    for n in range(50, 100):
        for name in ("open", "high", "low", "close"):
            rows[n][name] *= ratio
    rows[50]["volume"] *= volume
    rows[50] |= {"close": rows[49]["close"] * ratio, "open": rows[49]["close"] * ratio}
    rows[50] |= {"high": rows[50]["close"], "low": rows[50]["close"]}
    report = check(rows)
    assert not report.errors
    assert ("split" in report.warnings) is warned
    if warned:
        assert report.places["split"][0]["row"] == 52


def test_gaps_still_prices_and_look_ahead_are_warnings() -> None:
    gap = [*series(40), *(row | {"time": f"2027-01-{1 + n:02d}"} for n, row in enumerate(series(20)))]
    assert check(gap).places["gap"][0]["row"] == 42
    still = series(60)
    for n in range(20, 50):
        still[n] |= dict.fromkeys(("open", "high", "low", "close"), 50.0)
    assert check(still).places["constant"][0]["row"] == 42
    peek = series(200)
    for here, then in itertools.pairwise(peek):
        here["signal"] = math.log(then["close"] / here["close"])
    peek[-1]["signal"] = 0.0
    assert "'signal'" in check(peek).places["look_ahead"][0]["why"]
    honest = series(200)
    for n, row in enumerate(honest):
        row["signal"] = n % 7
    assert "look_ahead" not in check(honest).warnings


def test_a_universe_without_an_end_is_a_warning() -> None:
    assert "survivorship" in check([row for n in range(25) for row in series(40, f"S{n}", n)]).warnings


@pytest.mark.parametrize("closes", [(1e300, 1e-300), (1e-300, 1e300), (5e-324, 1.7e308)])
def test_a_step_between_any_two_prices_is_a_step(closes: tuple[float, float]) -> None:
    rows = series(150)
    for row, close in zip(rows[60:], closes * 45, strict=True):
        row |= dict.fromkeys(("open", "high", "low", "close"), close)
    for n, row in enumerate(rows):
        row["signal"] = n % 7
    assert (check(rows).reason, check(rows).rows) == ("", 150)


@pytest.mark.parametrize("size", [1e308, 1e-300, 1.0])
def test_a_feature_of_any_size_that_knows_the_next_return_is_found(size: float) -> None:
    peek = series(200)
    for here, then in itertools.pairwise(peek):
        here["signal"] = size * math.log(then["close"] / here["close"])
    peek[-1]["signal"] = 0.0
    assert "'signal'" in check(peek).places["look_ahead"][0]["why"]


def test_a_feature_that_is_always_the_same_knows_nothing() -> None:
    rows = series(200)
    for row in rows:
        row["signal"] = 0.1
    assert "look_ahead" not in check(rows).warnings


NAMES = ("symbol", "time", "open", "high", "low", "close", "volume", "signal")
PLACES = st.lists(st.tuples(st.integers(0, 119), st.sampled_from((*NAMES, "prices")), CELLS), max_size=8)


@given(PLACES, st.lists(st.lists(CELLS, min_size=1, max_size=8), max_size=3))
def test_any_cell_is_good_or_a_finding(odd: list[tuple[int, str, str]], table: list[list[str]]) -> None:
    rows = [{**row, "signal": n % 7} for n, row in enumerate(series(120))]
    for place, name, cell in odd:
        names = ("open", "high", "low", "close") if name == "prices" else (name,)
        rows[place] |= dict.fromkeys(names, cell)
    for made in ([list(NAMES), *([str(row[name]) for name in NAMES] for row in rows)], table):
        report = Report()
        with contextlib.suppress(UnreadableError):
            bars.check([content(made)], report, lambda: None)
        must_be_storable(report)
