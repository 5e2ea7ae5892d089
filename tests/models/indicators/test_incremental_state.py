"""Checkpoints of bar-by-bar indicators: another object continues every function with the same values."""

import hashlib
from array import array

import numpy as np
import pytest

from models.indicators import COLUMNS, Panel, Program
from models.indicators import compile as compile_indicators
from models.indicators.incremental import Incremental
from models.indicators.incremental_state import _VERSION
from tests.models.indicators.test_incremental import MORE, SPECS, bar, named, prices

KEPT = 40
STATES = {1: "53662109c8af52bf"}
"""By version: a fingerprint of the states after 60 bars, to three decimals."""


def panel_of(bars: list[dict[str, float]]) -> Panel:
    return Panel(**{name: np.array([one[name] for one in bars]) for name in COLUMNS})


def moved(live: Incremental, bars: list[dict[str, float]], fresh: int, program: Program) -> Incremental:
    """Another object after the same bars: a checkpoint `fresh` bars ago, and no more bars than the object holds."""
    before = Incremental(program, COLUMNS, KEPT)
    before.load(panel_of(bars[: len(bars) - fresh + 1]))
    count, state = before.checkpoint
    assert count == len(bars) - fresh
    history = panel_of(bars[-max(live.bars.capacity, fresh + 1) :])
    other = Incremental(program, COLUMNS, KEPT)
    other.resume(count, state, history.bars - fresh)
    other.load(history)
    return other


@pytest.mark.parametrize("spec", (*SPECS, *MORE), ids=named)
def test_the_values_after_a_move_are_those_without_one(spec):
    program, panel = compile_indicators([spec]), prices(100.0, 460)
    bars = [bar(panel, at) for at in range(panel.bars)]
    for at, fresh in ((1, 1), (2, 2), (3, 1), (30, 30), (331, 7), (450, 64)):
        live = Incremental(program, COLUMNS, KEPT)
        live.load(panel_of(bars[:at]))
        other = moved(live, bars[:at], fresh, program)
        changed = {name: value * 1.01 for name, value in bars[at - 1].items()}
        np.testing.assert_array_equal(other.values, live.values)
        np.testing.assert_array_equal(other.correct(changed), live.correct(changed))
        assert other.checkpoint == live.checkpoint
        for further in bars[at : at + 3]:
            np.testing.assert_array_equal(other.append(further), live.append(further))


def test_a_state_of_other_calls_or_of_no_calls_is_refused():
    program = compile_indicators([spec for spec in MORE if spec.name in {"ADXR", "RSI"}])
    live = Incremental(program, COLUMNS, KEPT)
    live.load(prices(100.0, 1300))
    _, state = live.checkpoint
    others = [[spec] for spec in MORE if spec.name == "RSI"]
    for other in map(compile_indicators, others):
        with pytest.raises(ValueError, match="other indicators"):
            Incremental(other, COLUMNS, KEPT).resume(1299, state, 40)
    digest, numbers = state[:8], array("d", state[8:])
    wrong = {
        "other indicators": [b"", state[:7], bytes(8) + state[8:]],
        "cut": [digest, state[:-1], state[:-8]],
        "too long": [state + bytes(8)],
        "whole number": [
            digest + array("d", [value, *numbers[1:]]).tobytes() for value in (0.5, np.nan, np.inf, -np.inf, 2.0**60)
        ],
    }
    for match, states in wrong.items():
        for one in states:
            with pytest.raises(ValueError, match=match):
                Incremental(program, COLUMNS, KEPT).resume(1299, one, 40)


def test_the_state_before_the_first_bar_is_none_of_later_bars():
    """A step from a later state would read memory that no bar was written to."""
    program, panel = compile_indicators([spec for spec in MORE if spec.name in {"ADXR", "RSI"}]), prices(100.0, 400)
    live = Incremental(program, COLUMNS, KEPT)
    live.append(bar(panel, 0))
    none, start = live.checkpoint
    live.append(bar(panel, 1))
    _, later = live.checkpoint
    other = Incremental(program, COLUMNS, KEPT)
    with pytest.raises(ValueError, match="before the first bar"):
        other.resume(none, later, 0)
    other.resume(none, start, 0)


@pytest.mark.parametrize("value", [0.0, -1.0, 1e308, -5.0, 2.0**52, np.nan, np.inf])
def test_any_numbers_in_a_state_give_values_and_no_failure(value):
    """A client may send any bytes as the state of a session."""
    panel = prices(100.0, 360)
    for spec in (*SPECS, *MORE):
        program = compile_indicators([spec])
        live = Incremental(program, COLUMNS, KEPT)
        live.load(panel)
        _, state = live.checkpoint
        numbers = array("d", [value]) * (len(state) // 8 - 1)
        try:
            live.resume(1000, state[:8] + numbers.tobytes(), 0)
        except ValueError:
            continue
        live.append(bar(panel, 290))
        live.correct(bar(panel, 120))


def test_a_version_means_one_layout():
    """Another state for the same bars, in form or in meaning, needs another version: a replica would misread it."""
    found, at = hashlib.sha256(), np.arange(60)
    close = 100 + at * at * 7 % 23 / 8  # exact, so that every machine gets the same states
    for spec in sorted((*SPECS, *MORE), key=named):
        live = Incremental(compile_indicators([spec]), COLUMNS, KEPT)
        live.load(Panel(close + 0.125, close + 0.5, close - 0.25, close, 1000 + at * 5 % 17.0))
        numbers = [round(number, 3) + 0.0 for number in array("d", live.checkpoint[1][8:])]  # no -0.0
        found.update(f"{named(spec)} {numbers}\n".encode())
    assert STATES.get(_VERSION) == found.hexdigest()[:16], "raise _VERSION, and store the fingerprint under the new one"
