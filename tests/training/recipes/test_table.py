"""Numbers of files."""

import math

import pytest

from training.recipes import bars, table
from training.recipes.run import DataRefusedError


@pytest.mark.parametrize(("text", "value"), [("10", 10.0), (" -1.5e3 ", -1500.0), (".5", 0.5), ("1e400", math.inf)])
def test_a_number_is_read(text: str, value: float) -> None:
    assert table.number(text) == value


@pytest.mark.parametrize("text", ["1_0", "\u0661\u0660", "\uff11", "", "x", "1,0", "0x5"])
def test_what_is_no_number_of_a_file_is_refused(text: str) -> None:
    """Python reads `1_0` as 10, and digits of every script."""
    assert math.isnan(table.number(text))
    with pytest.raises(DataRefusedError, match="row 2: close must be a finite number above 0"):
        bars.closes(["close\n", f'"{text}"\n'])
