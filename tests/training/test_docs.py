"""docs/training.md against the code."""

from pathlib import Path

from observability.settings import table
from training.plane import step
from training.plane.config import Config
from training.plane.job import JobState

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


def test_every_setting_is_in_the_page() -> None:
    assert table(Config) in PAGE


def test_every_state_is_in_the_page() -> None:
    assert not [state for state in JobState if f"`{state}`" not in PAGE]


def test_the_codes_and_times_are_those_of_the_code() -> None:
    assert f"{step.DATA_REFUSED_CODE} (data refused)" in PAGE
    assert f"{step.DEADLINE_CODE} (deadline)" in PAGE
    assert f"{step.CANCELLED_CODE} (cancelled)" in PAGE
    assert f"silent for {step.LOST_SECONDS / 60:.0f} minutes" in PAGE
    assert f"within {step.START_SECONDS / 60:.0f}" in PAGE
