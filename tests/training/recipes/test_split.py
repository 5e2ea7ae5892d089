"""Division by time with purge and embargo, and by draw."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.recipes.recipe import Split
from training.recipes.run import DataRefusedError
from training.recipes.split import divide
from training.recipes.texts import Text

DAY = 86_400.0


def row(n: int, time: float = math.nan, decided: float | None = None, text: str = "") -> Text:
    return Text(n, text or f"text {n}", n % 3, time, time if decided is None else decided)


def test_the_newest_rows_validate_and_late_labels_are_left_out() -> None:
    rows = [row(n, n * DAY, (n + 3) * DAY) for n in range(100)]
    found = divide(rows, Split(gate=0, validation=0.2, embargo_days=5), seed=1)
    assert [one.row for one in found.validate] == list(range(80, 100))
    assert [one.row for one in found.train] == list(range(75))
    assert found.purged == 5


@given(
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 30)), min_size=20, max_size=80),
    st.floats(0.1, 0.5),
    st.floats(0, 20),
)
def test_nothing_that_is_trained_on_was_decided_after_the_validation_begins(
    times: list[tuple[int, int]], share: float, embargo: float
) -> None:
    rows = [row(n, at * DAY, (at + later) * DAY) for n, (at, later) in enumerate(times)]
    try:
        found = divide(rows, Split(gate=0, validation=share, embargo_days=embargo), seed=1)
    except DataRefusedError:
        return
    begins = min(one.time for one in found.validate)
    assert max(one.label_time for one in found.train) < begins
    assert max(one.time for one in found.train) < begins - embargo * DAY or embargo == 0
    assert len(found.train) + len(found.validate) + found.purged == len(rows)


def test_what_is_held_back_for_the_gate_is_newer_than_everything_that_trains_or_validates() -> None:
    rows = [row(n, n * DAY, (n + 3) * DAY) for n in range(200)]
    found = divide(rows, Split(gate=0.2, validation=0.25, embargo_days=5), seed=1)
    assert [one.row for one in found.gate] == list(range(160, 200))
    assert [one.row for one in found.validate] == list(range(116, 155))
    assert max(one.label_time for one in found.validate) < min(one.time for one in found.gate)
    assert max(one.label_time for one in found.train) < min(one.time for one in found.validate)
    assert found.judged == found.gate


def test_without_times_one_text_is_on_one_side() -> None:
    rows = [row(n, text=f"text {n % 30}") for n in range(90)]
    found = divide(rows, Split(validation=0.3), seed=1)
    sides = [{one.text for one in part} for part in (found.train, found.validate, found.gate)]
    assert len(set.union(*sides)) == sum(map(len, sides)) == 30
    assert found == divide(rows, Split(validation=0.3), seed=1)
    assert found != divide(rows, Split(validation=0.3), seed=2)


def test_a_single_missing_time_is_named() -> None:
    rows = [row(n, n * DAY) for n in range(20)] + [row(20)]
    with pytest.raises(DataRefusedError, match="row 20"):
        divide(rows, Split(), seed=1)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(DataRefusedError, match="at least 5"):
        divide([row(n, n * DAY) for n in range(8)], Split(), seed=1)
